"""A draft's parameters and gradients by name, as sent over the wire."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aurora_common.errors import InvalidInputError
from aurora_model.draft import Draft, DraftConfig


def parameters(draft: Draft) -> dict[str, Tensor]:
    """The draft's parameters by name; tied ones appear once."""
    return {name: parameter.detach() for name, parameter in draft.named_parameters()}


def gradients(draft: Draft) -> dict[str, Tensor]:
    """The gradient of each of the draft's parameters, zeros if it has none."""
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.contiguous()
        for name, parameter in draft.named_parameters()
    }


def blank_draft(kind: type[Draft], config: DraftConfig) -> Draft:
    """A float32 draft with uninitialised weights, whose pages are not touched yet.

    Raises InvalidInputError if they cannot be allocated.
    """
    try:
        with torch.device("meta"):
            draft = kind.build(config)
        # By identity, so that tied parameters stay one.
        empty = {id(each): nn.Parameter(torch.empty(each.shape)) for each in draft.parameters()}
    except RuntimeError as error:
        raise InvalidInputError(
            "draft_config describes a draft that does not fit into memory"
        ) from error
    named = draft.named_parameters(remove_duplicate=False)
    draft.load_state_dict({name: empty[id(each)] for name, each in named}, assign=True)
    return draft.train()
