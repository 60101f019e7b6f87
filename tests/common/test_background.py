"""A task that must run for as long as its process does."""

from __future__ import annotations

import asyncio

from aurora_common import background
from aurora_common.background import BackgroundTask


async def test_it_is_started_again_counted_and_told(monkeypatch, caplog):
    monkeypatch.setattr(background, "_LEAST_BACKOFF_SECONDS", 0.001)
    runs, sound = 0, asyncio.Event()

    async def work():
        nonlocal runs
        runs += 1
        if runs < 4:
            raise ValueError("a secret")
        sound.set()
        await asyncio.Event().wait()

    task = BackgroundTask("sender", work)
    async with asyncio.timeout(10):
        await sound.wait()
    assert (task.failures, task.problem) == (3, "sender failed: ValueError")
    monkeypatch.setattr(background, "_SOUND_SECONDS", 0.0)
    await asyncio.sleep(0.001)
    assert task.problem == ""
    await task.stop()
    assert caplog.text.count("background task failed") == 3


async def test_work_that_returns_has_finished():
    async def work():
        return

    task = BackgroundTask("sender", work)
    await task.task
    assert task.failures == 0
