"""Deduplicates stream entries that are delivered more than once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class SeenIds:
    """The last `limit` ids, oldest first.

    The newest position alone would not do: entries reclaimed from a dead consumer arrive late, with
    ids older than those already seen. Only unacknowledged entries are redelivered, so `limit` must
    exceed their number.
    """

    def __init__(self, ids: Iterable[str] = (), *, limit: int = 8192) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}
        for stream_id in ids:
            self.add(stream_id)

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def add(self, stream_id: str) -> None:
        """Adds an id and drops the oldest beyond the limit."""
        self._ids[stream_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]
