"""Optimizers of a draft: AdamW, or Muon for the matrices of its layers and AdamW for the rest.

Muon replaces a matrix's averaged gradient by the nearest orthogonal matrix, so that all directions
move alike (Jordan et al. 2024, "Muon: an optimizer for hidden layers"; torch's own). Its steps are
scaled to the size of AdamW's (arXiv 2502.16982, section 2.2). Embeddings, heads and norms are not
maps between hidden states and stay with AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

OptimizerName = Literal["AdamW", "Muon"]

# Beside Muon everything bears larger steps: with this, a learning rate that suits AdamW alone suits
# both (docs/learning.md).
_RATE_WITH_MUON = 4.0
_HEAD = "lm_head"
# Where the former weights were going, as torch names it.
_DIRECTIONS = ("exp_avg", "momentum_buffer")
# A state of before there was a choice is AdamW's own.
_ALONE = "param_groups"


class DraftOptimizer:
    """One optimizer of all parameters, made of one or two of torch's."""

    def __init__(
        self,
        draft: nn.Module,
        name: OptimizerName,
        *,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        matrices = layer_matrices(draft) if name == "Muon" else {}
        rest = [each for key, each in draft.named_parameters() if key not in matrices]
        self._parts: dict[str, Optimizer] = {}
        if rest:
            self._parts["AdamW"] = AdamW(rest, betas=betas, weight_decay=weight_decay, fused=True)
        if matrices:
            self._parts["Muon"] = Muon(
                matrices.values(), weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            )

    def zero_grad(self) -> None:
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def step(self, learning_rate: float) -> None:
        """Follows the gradients; `learning_rate`: one that suits AdamW."""
        if "Muon" in self._parts:
            learning_rate *= _RATE_WITH_MUON
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def forget_direction(self) -> None:
        """The weights are others now; how the gradients scale is as it was."""
        for part in self._parts.values():
            for state in part.state.values():
                for name in _DIRECTIONS:
                    if name in state:
                        state[name].zero_()

    def state_dict(self) -> dict[str, object]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Resumes; False, with nothing resumed, if the state is that of the other optimizer.

        Raises ValueError or KeyError if it does not fit the draft.
        """
        found = {"AdamW": state} if _ALONE in state else state
        if set(found) != set(self._parts):
            return False
        for name, part in self._parts.items():
            part.load_state_dict(dict(found[name]))
        return True


def layer_matrices(draft: nn.Module) -> dict[str, nn.Parameter]:
    """The draft's matrices between hidden states, by name: neither embeddings nor heads."""
    embeddings = {
        id(module.weight) for module in draft.modules() if isinstance(module, nn.Embedding)
    }
    return {
        name: parameter
        for name, parameter in draft.named_parameters()
        if parameter.ndim == 2 and id(parameter) not in embeddings and _HEAD not in name.split(".")
    }
