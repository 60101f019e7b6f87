"""Tells every watcher that something changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class Changes:
    """A counter of changes; watchers that are slow see several changes as one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._closed = False

    def notify(self) -> None:
        # Each watcher waits for the event that was current when it looked.
        self._event.set()
        self._event = asyncio.Event()

    def close(self) -> None:
        """Ends every watch."""
        self._closed = True
        self.notify()

    async def watch(self) -> AsyncIterator[None]:
        """Yields at once, then after each change, until closed."""
        while not self._closed:
            event = self._event
            yield
            await event.wait()
