"""What depends on the processor that the models run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from aurora_model.decoder import Decoder


class Device(Protocol):
    """One processor, or a GPU by its index; `name` is torch's.

    A step waits for its device in `on_host` alone: what runs between two calls of it needs nothing
    from the host but sizes.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """For people: cpu, or a GPU with its product name."""

    def tune_target(self, decoder: Decoder) -> None:
        """Makes a target fast without changing what it computes beyond its dtype's rounding."""

    def tune_draft(self, draft: nn.Module) -> None:
        """Makes a draft fast; its weights may be rounded further."""

    def prefilling(self, tokens: int) -> AbstractContextManager[None]:
        """Surrounds the forward pass of a prompt's piece."""

    def free_bytes(self, percent: int) -> int | None:
        """How much may still be allocated so that `percent` of its memory is in use; None: it does
        not say."""

    def on_host(self, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
        """Waits for these tensors; returns their content, in memory that they may share."""

    def timed(self) -> Callable[[], Callable[[], float]]:
        """Begins to time some work; what it returns ends that, and returns what tells the seconds,
        which waits until the work is done."""

    def draft_dtype(self, target: torch.dtype) -> torch.dtype:
        """In what drafts are loaded: it affects how many tokens are accepted, never the output."""
