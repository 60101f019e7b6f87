import asyncio
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aurora_common.errors import UnavailableError
from aurora_operator.cluster.work_queue import LAST_RETRY_SECONDS, Workers, WorkQueue, retry_seconds

KEYS = st.sampled_from("abc")


class Queueing(RuleBasedStateMachine):
    """Against the simplest queue possible: a dictionary of times and a set."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: WorkQueue[str] = WorkQueue()
        self.due: dict[str, float] = {}
        self.working: set[str] = set()
        self.now = 0.0

    @rule(key=KEYS, after=st.floats(0, 3))
    def add(self, key, after):
        self.queue.add(key, self.now + after)
        self.due[key] = min(self.due.get(key, self.now + after), self.now + after)

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def get(self):
        ready = {
            key: due for key, due in self.due.items() if due <= self.now and key not in self.working
        }
        key = self.queue.get(self.now)
        if key is None:
            assert not ready
            return
        assert ready[key] == min(ready.values())
        del self.due[key]
        self.working.add(key)

    @rule(key=KEYS)
    def done(self, key):
        if key in self.working:
            self.working.remove(key)
            self.queue.done(key)

    @invariant()
    def agrees(self):
        assert len(self.queue) == len(self.due)
        assert self.queue.working == self.working
        idle = [due for key, due in self.due.items() if key not in self.working]
        assert self.queue.next_due() == min(idle, default=None)


TestQueueing = Queueing.TestCase


def test_keys_due_at_once_are_processed_in_the_order_of_adding():
    queue: WorkQueue[str] = WorkQueue()
    for key in "cab":
        queue.add(key, 1.0)
    assert [queue.get(1.0) for _ in range(4)] == ["c", "a", "b", None]


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_delays_grow_and_stay_bounded(failures, jitter):
    seconds = retry_seconds(failures, jitter)
    assert 0 < seconds <= LAST_RETRY_SECONDS
    assert seconds <= retry_seconds(failures + 1, jitter)


async def _run(workers, until):
    task = asyncio.create_task(workers.run())
    try:
        async with asyncio.timeout(5):
            await until.wait()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_key_added_while_processed_is_processed_again_afterwards():
    runs, inside, finished = [], 0, asyncio.Event()

    async def work(key: str) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        if not runs:
            workers.add(key)
            workers.add(key)
        await asyncio.sleep(0)
        runs.append(key)
        inside -= 1
        if len(runs) == 2:
            finished.set()

    workers = Workers("test", work, limit=4)
    workers.add("a")
    await _run(workers, finished)
    assert runs == ["a", "a"]
    assert len(workers.queue) == 0


async def test_a_failing_key_is_retried_and_delays_no_other():
    runs, finished = [], asyncio.Event()

    async def work(key: str) -> None:
        runs.append(key)
        if key == "bad":
            if runs.count("bad") == 3:
                finished.set()
            raise UnavailableError("not now") if runs.count("bad") == 1 else ValueError("a fault")

    workers = Workers("test", work, limit=1)
    for key in ("bad", "good", "better"):
        workers.add(key)
    await _run(workers, finished)
    assert runs == ["bad", "good", "better", "bad", "bad"]


async def test_a_key_is_processed_again_when_its_work_asks_for_it():
    runs, finished = [], asyncio.Event()

    async def work(key: str) -> float | None:
        runs.append(key)
        if len(runs) == 3:
            finished.set()
            return None
        return 0.01

    workers = Workers("test", work, limit=2)
    workers.add("a")
    await _run(workers, finished)
    assert runs == ["a"] * 3


async def test_the_limit_holds_and_urgent_keys_go_first():
    order, inside, most, finished = [], 0, 0, asyncio.Event()

    async def work(key: str) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        order.append(key)
        await asyncio.sleep(0)
        inside -= 1
        if len(order) == 6:
            finished.set()

    workers = Workers("test", work, limit=2)
    for key in "abcde":
        workers.add(key)
    workers.add("live", urgent=True)
    await _run(workers, finished)
    assert order[0] == "live"
    assert most == 2
