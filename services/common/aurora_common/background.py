"""Tasks that must run for as long as their process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

_LEAST_BACKOFF_SECONDS = 0.1
_MOST_BACKOFF_SECONDS = 30.0
# One that has run this long was sound: the next failure begins with the least backoff.
_SOUND_SECONDS = 60.0


class BackgroundTask:
    """Runs `work` on the event loop; if it raises, says so and runs it again after a pause.

    `failures` counts; `problem` is what it raised last, empty again once it has run for a minute.
    `work` that returns has finished.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self.failures = 0
        self._work = work
        self._problem = ""
        self._started_at = 0.0
        self._loop = asyncio.get_running_loop()
        self.task = asyncio.create_task(self._run(), name=name)

    @property
    def problem(self) -> str:
        """Why the last run ended, for people; empty if the present run is sound."""
        return "" if self._ran_seconds() > _SOUND_SECONDS else self._problem

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = _LEAST_BACKOFF_SECONDS
        while True:
            self._started_at = self._loop.time()
            try:
                return await self._work()
            except Exception as error:
                self.failures += 1
                if self._ran_seconds() > _SOUND_SECONDS:
                    backoff = _LEAST_BACKOFF_SECONDS
                self._problem = f"{self.name} failed: {type(error).__name__}"
                logger.exception(
                    "background task failed; starting it again",
                    extra={"fields": {"task": self.name, "failures": self.failures}},
                )
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _MOST_BACKOFF_SECONDS)

    def _ran_seconds(self) -> float:
        return self._loop.time() - self._started_at
