"""Background work that must not end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)

STEADY_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_CANCEL_SECONDS = 1.0


async def kept_running(
    name: str,
    work: Callable[[], Coroutine[Any, Any, None]],
    *,
    on_end: Callable[[], Awaitable[None]] | None = None,
    on_steady: Callable[[], Awaitable[None]] | None = None,
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Runs `work` until cancelled; if it ends or crashes, logs that and starts it again.

    It pauses between starts for 1, 2, 4 … 60 seconds. `on_end` is called at each end, `on_steady`
    when the work has run for STEADY_SECONDS again. Errors in `fatal` are raised: whoever names some
    must await this.
    """
    pause = _FIRST_PAUSE_SECONDS
    ended = False
    while True:
        task = asyncio.create_task(work(), name=name)
        try:
            await asyncio.wait({task}, timeout=STEADY_SECONDS if ended else None)
            if not task.done():
                ended, pause = False, _FIRST_PAUSE_SECONDS
                if on_steady is not None:
                    await on_steady()
                await asyncio.wait({task})
        except asyncio.CancelledError:
            # A library may swallow a cancellation, and `work` would go on for ever.
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
            raise
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, fatal):
            raise failure
        ended = True
        logger.error(
            "background task ended; will restart",
            extra={"fields": {"task": name, "restart_in_seconds": pause}},
            exc_info=failure,
        )
        if on_end is not None:
            await on_end()
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
