"""A draft's parameters and their gradients as they travel, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from aurora_common.errors import InvalidInputError
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder
from aurora_model.weights import weight_layout
from aurora_trainer.tensor_file import read, size_limit_bytes


def parameters(draft: Decoder) -> dict[str, Tensor]:
    """The draft's parameters by name; a tied one once."""
    return {name: parameter.detach() for name, parameter in draft.named_parameters()}


def gradients(draft: Decoder) -> dict[str, Tensor]:
    """The gradient of each of the draft's parameters, zeros where there is none."""
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in draft.named_parameters()
    }


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of a draft's parameters, before there is a draft."""
    return {
        name: (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        for name, parts in weight_layout(config).items()
    }


def parsed_parameters(
    what: str, content: bytes, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """A tensor for each parameter; raises InvalidInputError where they are not exactly these."""
    tensors = read(what, content)
    wrong = sorted(
        name
        for name in tensors.keys() | shapes.keys()
        if name not in tensors
        or tensors[name].dtype != torch.float32
        or shapes.get(name) != tuple(tensors[name].shape)
    )
    if wrong:
        raise InvalidInputError(
            f"the {what} do not fit the draft's config: {len(wrong)} tensors are missing, "
            f"unexpected, not float32 or of another shape, the first is {wrong[0][:100]!r}"
        )
    return tensors


def limit_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """What a file of these tensors takes at most."""
    return size_limit_bytes(needed_bytes(shapes), len(shapes))


def needed_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """What float32 tensors of these shapes take."""
    return 4 * sum(math.prod(shape) for shape in shapes.values())
