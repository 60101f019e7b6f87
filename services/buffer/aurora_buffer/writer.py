"""Pipelines the entries of one Append call into the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aurora_buffer.entry import NewEntry
from aurora_buffer.stream import SCRIPT_LIMIT, TrajectoryStream

# How much of a call is queued while an earlier part is being stored.
QUEUE_BYTES = 8 << 20


class Writer:
    """Stores entries in order; those that arrive while Redis is busy are stored together.

    Leaving the block early discards what Redis has not stored yet.
    """

    def __init__(self, stream: TrajectoryStream) -> None:
        self._stream = stream
        self._queued: list[NewEntry] = []
        self._queued_bytes = 0
        self._storing: asyncio.Task[str] | None = None
        self._last_id = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)

    async def write(self, entries: Sequence[NewEntry]) -> None:
        """Queues entries, waiting for Redis first if enough are queued already."""
        self._queued += entries
        self._queued_bytes += sum(entry.size_bytes for entry in entries)
        full = self._queued_bytes >= QUEUE_BYTES or len(self._queued) >= SCRIPT_LIMIT
        if full or self._storing is None or self._storing.done():
            await self._store()

    async def finish(self) -> str:
        """Waits until everything is stored; returns the newest entry's id, empty if none."""
        while self._queued or self._storing is not None:
            await self._store()
        return self._last_id

    async def _store(self) -> None:
        """Waits for the store in progress, then starts storing what is queued."""
        if self._storing is not None:
            self._last_id = await self._storing
            self._storing = None
        if self._queued:
            entries, self._queued, self._queued_bytes = self._queued, [], 0
            self._storing = asyncio.create_task(self._stream.append(entries))
