import asyncio

import pytest

from aurora_common import kept_running as module
from aurora_common.errors import AuroraError, ConflictError, UnavailableError
from aurora_common.kept_running import kept_running


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "STEADY_SECONDS", 0.05)


class Work:
    """Ends as told, one way for each start, then runs on."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.events = []
        self.running = asyncio.Event()
        self.is_steady = asyncio.Event()

    async def run(self):
        if self.ends:
            end = self.ends.pop(0)
            if isinstance(end, BaseException):
                raise end
            return
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("cancelled")

    async def ended(self):
        self.events.append("ended")

    async def steady(self):
        self.events.append("steady")
        self.is_steady.set()

    def kept(self, *fatal):
        return asyncio.create_task(
            kept_running("work", self.run, on_end=self.ended, on_steady=self.steady, fatal=fatal)
        )


@pytest.mark.parametrize(
    "end", [ValueError("a bug"), None, asyncio.CancelledError(), UnavailableError("for now")]
)
async def test_what_ends_is_logged_told_and_started_again(end, caplog):
    work = Work(end, end)
    task = work.kept()
    async with asyncio.timeout(10):
        await work.is_steady.wait()
    assert work.events == ["ended", "ended", "steady"]
    assert [record.fields["task"] for record in caplog.records] == ["work", "work"]
    assert ("a bug" in caplog.text) is isinstance(end, ValueError)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_cancelling_waits_for_the_works_end():
    work = Work()
    task = work.kept()
    await work.running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.events == ["cancelled"]


async def test_work_that_swallows_a_cancellation_ends_all_the_same(monkeypatch):
    monkeypatch.setattr(module, "_CANCEL_SECONDS", 0.01)
    swallowed, running = [], asyncio.Event()

    async def work():
        running.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(True)

    task = asyncio.create_task(kept_running("work", work, on_end=asyncio.Event().wait))
    await running.wait()
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert swallowed


async def test_an_error_on_purpose_is_raised():
    work = Work(ConflictError("not with this Redis"))
    with pytest.raises(ConflictError, match="not with this Redis"):
        await work.kept(AuroraError)
    assert work.events == []
