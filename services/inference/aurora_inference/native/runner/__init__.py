"""Everything that touches tensors: forward passes, caches, verification, capture, drafters."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from aurora_inference.native.runner.drafter import Drafter
from aurora_inference.native.sequence import Sequence
from aurora_inference.trajectory.completion import Distributions


class Verified(NamedTuple):
    """For each row, how many tokens were drafted and accepted, and all that the step gave it.

    `drafting`: by digest, the seconds of the step that a draft took for all of its rows.
    """

    drafted: list[int]
    accepted: list[int]
    emitted: list[list[int]]
    drafting: Mapping[str, float] = MappingProxyType({})


class Runner(Protocol):
    """Runs the models for the engine, which decides what runs.

    Its passes raise DeviceLostError once no other can succeed.

    The engine numbers the rows: running sequences are rows 0 to n-1, the one in prefill is row n.
    """

    @property
    def stop_tokens(self) -> frozenset[int]: ...

    @property
    def device(self) -> str:
        """What it computes on, for people: cpu, or a GPU with its name."""

    @property
    def draft_kinds(self) -> tuple[str, ...]: ...

    def load_drafter(self, folder: Path, digest: str) -> Drafter:
        """Verifies a draft checkpoint and makes it ready to propose; callable from any thread.

        An empty digest accepts whatever the manifest says. Raises CheckpointError.
        """

    def begin(self, sequence: Sequence, drafter: Drafter | None) -> None:
        """Prepares a new sequence, which `drafter` will draft for."""

    def prefill(self, sequence: Sequence, *, row: int, end: int) -> int | None:
        """Feeds the prompt up to `end`; returns the first output token once all of it is fed."""

    def decode(self, sequences: Rows[Sequence], lengths: list[int]) -> Verified:
        """Drafts `lengths[i]` tokens for row i and verifies all rows in one pass of the target.

        A draft that raises an error costs its sequences their drafts, in this step and all later
        ones (`Sequence.draft_failed`), and nothing else.
        """

    def change(self, sequence: Sequence, drafter: Drafter) -> None:
        """Has `drafter`, which must need no states of the target, draft for a decoding sequence."""

    def move(self, source: int, destination: int, tokens: int) -> None:
        """Copies the first `tokens` cached tokens of a row to another row."""

    def end(self, sequence: Sequence) -> Distributions | None:
        """Forgets a sequence; returns what was captured for it, None if nothing was."""
