"""Runs blocking work beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


def in_background(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """What `work` returns or raises, run at once on a thread of its own.

    Unlike those of `asyncio.to_thread`, the thread does not keep the process alive.
    """
    events = asyncio.get_running_loop()
    done: asyncio.Future[Result] = events.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # work that raised nothing
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - raised where it is awaited
            error = raised
        # The loop may have been closed.
        with suppress(RuntimeError):
            events.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return done
