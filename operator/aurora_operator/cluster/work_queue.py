"""A work queue of keys: each is queued at most once, and processed by one worker at a time."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Generic, TypeVar

from aurora_common.errors import AuroraError, ConflictError

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 60.0


Key = TypeVar("Key")


class WorkQueue(Generic[Key]):
    """Keys by the time at which they are due, in seconds of the caller's clock.

    A key that is added while it is processed is processed again afterwards, never concurrently.
    """

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = count()
        self._working: set[Key] = set()

    def __len__(self) -> int:
        """The number of waiting keys, due or not."""
        return len(self._due)

    @property
    def working(self) -> frozenset[Key]:
        return frozenset(self._working)

    def add(self, key: Key, due: float) -> None:
        """Queues `key` for `due`, or the earlier time that it is queued for already."""
        known = self._due.get(key)
        if known is not None and known <= due:
            return
        self._due[key] = due
        if key not in self._working:
            self._push(key)

    def get(self, now: float) -> Key | None:
        """Removes and returns the key with the earliest due time; None if none is due."""
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) != due or key in self._working:
                heapq.heappop(self._heap)
                continue
            if due > now:
                return None
            heapq.heappop(self._heap)
            del self._due[key]
            self._working.add(key)
            return key
        return None

    def done(self, key: Key) -> None:
        """Ends the processing of `key`."""
        self._working.remove(key)
        if key in self._due:
            self._push(key)

    def next_due(self) -> float | None:
        """The earliest due time of the keys that are not being processed."""
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) == due and key not in self._working:
                return due
            heapq.heappop(self._heap)
        return None

    def _push(self, key: Key) -> None:
        heapq.heappush(self._heap, (self._due[key], next(self._order), key))


def retry_seconds(failures: int, jitter: float) -> float:
    """The delay after that many failures in a row; `jitter` in [0, 1] halves it at most."""
    longest = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 20))
    return longest * (1.0 - jitter / 2)


class Workers(Generic[Key]):
    """Runs `work` for each key that is due, at most `limit` at once.

    `work` returns the seconds until the key is due again, or None. After an error the key is
    retried with exponential backoff; other keys are not affected.
    """

    def __init__(
        self, name: str, work: Callable[[Key], Awaitable[float | None]], *, limit: int
    ) -> None:
        self.queue = WorkQueue[Key]()
        # When a key was last finished, or none was due; monotonic.
        self.progress_at = time.monotonic()
        self._name = name
        self._work = work
        self._limit = limit
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: Key, *, after_seconds: float = 0.0, urgent: bool = False) -> None:
        """Queues `key`; an urgent one goes before all others."""
        self.queue.add(key, 0.0 if urgent else time.monotonic() + after_seconds)
        self._wake.set()

    def forget(self, key: Key) -> None:
        self._failures.pop(key, None)

    def heartbeat(self) -> None:
        """Notes progress if no key is due; call it every few seconds."""
        due = self.queue.next_due()
        if due is None or due > time.monotonic():
            self.progress_at = time.monotonic()

    async def run(self) -> None:
        """Processes keys until cancelled, then cancels the work in progress."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                while len(running) < self._limit:
                    key = self.queue.get(time.monotonic())
                    if key is None:
                        break
                    running.add(asyncio.create_task(self._one(key)))
                await self._pause(full=len(running) >= self._limit)
                running = {task for task in running if not task.done()}
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _pause(self, *, full: bool) -> None:
        """Waits until a key is due or a worker is free."""
        due = None if full else self.queue.next_due()
        seconds = None if due is None else max(0.0, due - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _one(self, key: Key) -> None:
        try:
            again = await self._work(key)
        except AuroraError as error:
            self._retry(key, error)
            # Conflicts are expected: another writer was faster.
            level = logging.INFO if isinstance(error, ConflictError) else logging.WARNING
            fields = {"key": str(key), "reason": str(error)}
            logger.log(level, f"{self._name} failed; will retry", extra={"fields": fields})
        except Exception as error:
            # A bug that one deployment triggers must not stop the others.
            self._retry(key, error)
            logger.exception(
                f"{self._name} crashed; will retry", extra={"fields": {"key": str(key)}}
            )
        else:
            self.forget(key)
            if again is not None:
                self.queue.add(key, time.monotonic() + again)
        finally:
            self.progress_at = time.monotonic()
            self.queue.done(key)
            self._wake.set()

    def _retry(self, key: Key, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = retry_seconds(failures, random.random())
        asked = getattr(error, "retry_after_seconds", None)
        self.queue.add(key, time.monotonic() + max(seconds, asked or 0.0))
