"""The writing side of one Append call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aurora_buffer.entry import NewEntry
from aurora_buffer.stream import SCRIPT_LIMIT, TrajectoryStream

# How much of a call waits for Redis while what went before is being stored.
WAITING_BYTES = 8 << 20


class Writer:
    """Stores entries in order; those that arrive while Redis works are stored together.

    Leaving the block early gives up what Redis has not stored yet.
    """

    def __init__(self, stream: TrajectoryStream) -> None:
        self._stream = stream
        self._waiting: list[NewEntry] = []
        self._waiting_bytes = 0
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
        """Takes entries, after waiting for Redis where enough of them wait already."""
        self._waiting += entries
        self._waiting_bytes += sum(entry.size_bytes for entry in entries)
        full = self._waiting_bytes >= WAITING_BYTES or len(self._waiting) >= SCRIPT_LIMIT
        if full or self._storing is None or self._storing.done():
            await self._store()

    async def finish(self) -> str:
        """Returns the newest entry's id, empty for none, once Redis has everything."""
        while self._waiting or self._storing is not None:
            await self._store()
        return self._last_id

    async def _store(self) -> None:
        """Waits for what is being stored, then begins to store what waits."""
        if self._storing is not None:
            self._last_id = await self._storing
            self._storing = None
        if self._waiting:
            entries, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self._storing = asyncio.create_task(self._stream.append(entries))
