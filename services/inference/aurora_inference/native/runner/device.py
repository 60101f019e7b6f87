"""What depends on the processor that the models run on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn

    from aurora_model.decoder import Decoder


class Device(Protocol):
    """Tunes models for one kind of processor; `name` is torch's."""

    @property
    def name(self) -> str: ...

    def tune_target(self, decoder: Decoder) -> None:
        """Makes a target fast without changing what it computes beyond its dtype's rounding."""

    def tune_draft(self, draft: nn.Module) -> None:
        """Makes a draft fast; its weights may be rounded further."""

    def prefilling(self, tokens: int) -> AbstractContextManager[None]:
        """Surrounds the forward pass of a prompt's piece."""
