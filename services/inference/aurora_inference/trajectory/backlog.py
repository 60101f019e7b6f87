"""Finished requests waiting to be sent: bounded, the oldest dropped first."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from aurora_inference.trajectory.completion import Completion
from aurora_inference.trajectory.record import estimated_bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """`finished_at_ms` is Unix time."""

    completion: Completion
    finished_at_ms: int
    size_bytes: int


class Backlog:
    """Thread-safe; no call blocks for longer than a few list operations."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: deque[Finished] = deque()
        self._bytes = 0
        self._dropped = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def dropped(self) -> int:
        """How many were dropped because the backlog was full."""
        return self._dropped

    def put(self, completion: Completion, finished_at_ms: int) -> None:
        """Adds one and drops the oldest until the bounds hold; itself if it alone exceeds them."""
        entry = Finished(completion, finished_at_ms, estimated_bytes(completion))
        with self._lock:
            self._entries.append(entry)
            self._bytes += entry.size_bytes
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                self._bytes -= self._entries.popleft().size_bytes
                self._dropped += 1

    def take(self, *, max_entries: int, max_bytes: int) -> list[Finished]:
        """Removes the oldest, in order, within the bounds; always at least one if any waits."""
        taken: list[Finished] = []
        room = max_bytes
        with self._lock:
            while self._entries and len(taken) < max_entries:
                size = self._entries[0].size_bytes
                if taken and size > room:
                    break
                taken.append(self._entries.popleft())
                room -= size
                self._bytes -= size
        return taken
