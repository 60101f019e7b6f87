"""Hands trajectories from the event loop to the training thread."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Sequence

from aurora.buffer.v1 import buffer_pb2

# Poll interval for room; meanwhile the stream's flow control holds back the buffer.
_ROOM_POLL_SECONDS = 0.05


class Inbox:
    """A bounded queue of deliveries."""

    def __init__(self, limit_deliveries: int = 32) -> None:
        self._deliveries: queue.Queue[Sequence[buffer_pb2.Entry]] = queue.Queue(limit_deliveries)

    async def put(self, entries: Sequence[buffer_pb2.Entry]) -> None:
        """Adds a delivery, waiting for room."""
        while True:
            try:
                self._deliveries.put_nowait(entries)
            except queue.Full:
                await asyncio.sleep(_ROOM_POLL_SECONDS)
            else:
                return

    def take(self, *, wait_seconds: float) -> list[buffer_pb2.Entry]:
        """All queued entries, after waiting at most `wait_seconds` for a first delivery."""
        entries: list[buffer_pb2.Entry] = []
        try:
            entries.extend(self._deliveries.get(timeout=wait_seconds) if wait_seconds else ())
            while True:
                entries.extend(self._deliveries.get_nowait())
        except queue.Empty:
            return entries
