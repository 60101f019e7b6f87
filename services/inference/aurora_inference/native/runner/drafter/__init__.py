"""Drafters: what proposes tokens for the target to verify, one implementation for each kind."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aurora_inference.native.runner.device import Device
from aurora_inference.native.sequence import Sequence

if TYPE_CHECKING:
    # The engine's bookkeeping handles drafters without importing torch.
    from torch import Tensor

    from aurora_inference.native.runner.sampler import Sampler


class WithoutStates:
    """A part of each drafter that needs nothing of the target but its tokens."""

    target_layers: tuple[int, ...] = ()

    def observe(self, read: Rows[tuple[Sequence, int]], states: Tensor) -> None:
        raise AssertionError("it needs no states")


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

    @property
    def target_layers(self) -> tuple[int, ...]:
        """Ascending: the target's layers, as `Decoder.states` has them, that it needs to know.

        Empty: none, and `observe` is never called.
        """

    def observe(self, read: Rows[tuple[Sequence, int]], states: Tensor) -> None:
        """Takes what entered those layers, [Σ counts, layers × hidden], side by side.

        For each sequence: at its next so many positions, which the target has read and whose tokens
        are accepted, beginning with the prompt's first, before `add` too.
        """

    def add(self, sequence: Sequence) -> None:
        """Starts to draft for a sequence whose prompt the target holds."""

    def remove(self, sequence: Sequence) -> None:
        """Forgets a sequence, whether it was added yet or not."""

    def propose(self, count: int, sampler: Sampler) -> Proposal:
        """Drafts `count` tokens for each of its sequences, whose rows the sampler has in order."""
