"""Which stream entries were taken in lately, so that one delivered twice counts once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class SeenIds:
    """The last `limit` ids, oldest first.

    Ids rather than the newest position: entries of a consumer that died come late, older than what
    was read since, and were never seen. At-least-once delivery repeats only what is not yet
    acknowledged, which `limit` must exceed.
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
        """Remembers an id and forgets the oldest beyond the limit."""
        self._ids[stream_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]
