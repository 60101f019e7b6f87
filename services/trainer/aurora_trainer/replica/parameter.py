"""A draft's parameters and their gradients by name, as they travel."""

from __future__ import annotations

import torch
from torch import Tensor

from aurora_common.errors import InvalidInputError
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder
from aurora_model.weights import weight_layout


def parameters(draft: Decoder) -> dict[str, Tensor]:
    """The draft's parameters by name; a tied one once."""
    return {name: parameter.detach() for name, parameter in draft.named_parameters()}


def gradients(draft: Decoder) -> dict[str, Tensor]:
    """The gradient of each of the draft's parameters, zeros where there is none."""
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.contiguous()
        for name, parameter in draft.named_parameters()
    }


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each of a draft's parameters, before there is a draft."""
    return {
        name: (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        for name, parts in weight_layout(config).items()
    }


def blank_draft(config: DecoderConfig) -> Decoder:
    """A float32 draft whose weights are yet to come: they take no memory until then.

    Raises InvalidInputError for one that no memory could hold.
    """
    try:
        with torch.device("meta"):
            draft = Decoder(config)
        state = {name: torch.empty(shape) for name, shape in parameter_shapes(config).items()}
    except RuntimeError as error:
        raise InvalidInputError("draft_config describes a draft that has no room here") from error
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    draft.load_state_dict(state, assign=True)
    draft.tie_embeddings()
    return draft.train().requires_grad_()
