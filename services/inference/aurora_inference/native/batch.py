"""Which sequence has which row of the caches."""

from __future__ import annotations

from typing import NamedTuple

from aurora_inference.native.sequence import Sequence


class Move(NamedTuple):
    """Cached tokens to be copied from one row to another."""

    source: int
    destination: int
    tokens: int


class Batch:
    """Rows are dense: `running[i]` has row i, the sequence in prefill the row behind them."""

    def __init__(self) -> None:
        self.running: list[Sequence] = []
        self.prefilling: Sequence | None = None

    def __len__(self) -> int:
        return len(self.running) + (self.prefilling is not None)

    @property
    def sequences(self) -> list[Sequence]:
        return [*self.running, *([self.prefilling] if self.prefilling else [])]

    def start_decoding(self) -> None:
        """The prompt in prefill is complete; its row is the next of the running ones already."""
        assert self.prefilling is not None
        self.running.append(self.prefilling)
        self.prefilling = None

    def release(self, sequence: Sequence) -> list[Move]:
        """Frees a sequence's row; the last row takes its place. The moves to make, in order."""
        if sequence is self.prefilling:
            self.prefilling = None
            return []
        moves = []
        row = self.running.index(sequence)
        last = self.running.pop()
        behind = len(self.running)
        if last is not sequence:
            self.running[row] = last
            moves.append(Move(behind, row, last.cached))
        if self.prefilling is not None:
            moves.append(Move(behind + 1, behind, self.prefilling.cached))
        return moves
