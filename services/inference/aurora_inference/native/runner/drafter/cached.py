"""What drafters with a key-value cache of their own share."""

from __future__ import annotations

from aurora_inference.native.runner.cache import KeyValueCache
from aurora_inference.native.sequence import Sequence


class CachedRows:
    """Row i of the cache belongs to `sequences[i]`, of which it holds `draft_cached` positions."""

    def __init__(self, cache: KeyValueCache) -> None:
        self.sequences: list[Sequence] = []
        self._cache = cache

    def add(self, sequence: Sequence) -> None:
        sequence.draft_cached = 0
        self.sequences.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Frees a sequence's row, if it has one; the last row takes its place."""
        if sequence not in self.sequences:
            return
        row = self.sequences.index(sequence)
        last = self.sequences.pop()
        if last is not sequence:
            self._cache.move(len(self.sequences), row, last.draft_cached)
            self.sequences[row] = last
