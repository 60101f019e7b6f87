"""Drafters: what proposes tokens for the target to verify, one implementation for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from aurora_inference.native.runner.device import Device
from aurora_inference.native.sequence import Sequence

if TYPE_CHECKING:
    # The engine's bookkeeping handles drafters without importing torch.
    from torch import Tensor

    from aurora_inference.native.runner.sampler import Sampler


class Proposal(NamedTuple):
    """Drafted tokens and what they were drawn from; `probs` is None if all rows are determined."""

    tokens: Tensor  # [m, K] int64
    probs: Tensor | None  # [m, K, V] float32


class DrafterRoom(NamedTuple):
    """How much a drafter must hold, rows of `capacity` tokens each, and where it runs."""

    rows: int
    capacity: int
    device: Device


class Drafter(Protocol):
    """One draft checkpoint, drafting for the sequences that began with it."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def sequences(self) -> list[Sequence]:
        """The sequences it drafts for, in the order of a proposal's rows."""

    def add(self, sequence: Sequence) -> None:
        """Starts to draft for a sequence whose prompt the target holds."""

    def remove(self, sequence: Sequence) -> None: ...

    def propose(self, count: int, sampler: Sampler) -> Proposal:
        """Drafts `count` tokens for each of its sequences, whose rows the sampler has in order."""
