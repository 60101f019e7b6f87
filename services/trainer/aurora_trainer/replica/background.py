"""Work that blocks, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


def in_background(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """What `work` returns or raises, from a thread of its own that begins at once.

    Unlike a thread of `asyncio.to_thread`, one that takes too long does not keep the process alive.
    """
    events = asyncio.get_running_loop()
    done: asyncio.Future[Result] = events.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # of a work that raised nothing
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - raised where it is waited for
            error = raised
        # The loop may be gone, and whoever waited with it.
        with suppress(RuntimeError):
            events.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return done
