"""The engine's thread: all access goes through it, and every request ends."""

from __future__ import annotations

import queue
import threading

import pytest

from aurora_common.errors import (
    ConflictError,
    DeviceLostError,
    InvalidInputError,
    OverloadedError,
    UnavailableError,
)
from aurora_inference.contract import Progress, Request, Sampling
from aurora_inference.native.worker import EngineWorker

GREEDY = Sampling(temperature=0.0)
DEADLINE_SECONDS = 20


@pytest.fixture
def start(make_engine):
    """Starts workers around new engines; stops them at the end."""
    workers = []

    def begin(*, max_inflight: int = 16) -> tuple[EngineWorker, object]:
        harness = make_engine(draft="bad")
        worker = EngineWorker(harness.engine, max_inflight=max_inflight)
        worker.start()
        workers.append(worker)
        return worker, harness.engine

    yield begin
    for worker in workers:
        worker.stop(drain_seconds=0)


def _request(name: str, max_tokens: int = 8) -> Request:
    return Request(name, (3, 4, 5), max_tokens, GREEDY, ignore_eos=True)


def _finished(heard: queue.Queue[Progress]) -> tuple[list[int], str]:
    tokens: list[int] = []
    while True:
        progress = heard.get(timeout=DEADLINE_SECONDS)
        tokens += progress.token_ids
        if progress.finish_reason is not None:
            return tokens, progress.finish_reason


def test_concurrent_requests_all_finish(start) -> None:
    worker, _ = start()
    heard = {f"r{n}": queue.Queue() for n in range(12)}
    for name, sink in heard.items():
        worker.submit(_request(name), sink.put)
    outputs = {name: _finished(sink) for name, sink in heard.items()}
    assert {reason for _, reason in outputs.values()} == {"length"}
    assert len({tuple(tokens) for tokens, _ in outputs.values()}) == 1


def test_a_lost_device_ends_the_requests_and_is_told(make_engine, monkeypatch) -> None:
    harness, told = make_engine(draft="bad"), queue.Queue()

    def lost():
        raise DeviceLostError("the GPU is lost to this process: ECC error")

    monkeypatch.setattr(harness.engine, "step", lost)
    worker = EngineWorker(harness.engine, max_inflight=1, on_lost=told.put)
    worker.start()
    heard = queue.Queue()
    worker.submit(_request("r"), heard.put)
    assert _finished(heard) == ([], "error")
    assert "ECC error" in str(told.get(timeout=DEADLINE_SECONDS))
    worker.stop(drain_seconds=0)


def test_requests_over_the_limit_are_refused_until_one_finishes(start) -> None:
    worker, _ = start(max_inflight=2)
    heard = queue.Queue()
    worker.submit(_request("a", 100), heard.put)
    worker.submit(_request("b", 100), heard.put)
    with pytest.raises(OverloadedError, match="2 requests are running or waiting"):
        worker.submit(_request("c"), heard.put)
    _finished(heard)
    worker.submit(_request("d"), heard.put)
    _finished(heard)


def test_an_invalid_request_is_refused_at_submission(start) -> None:
    worker, _ = start()
    with pytest.raises(InvalidInputError, match="max_tokens is 0"):
        worker.submit(_request("a", 0), lambda _: None)


def test_operations_run_between_steps_and_their_errors_come_back(start) -> None:
    worker, engine = start()
    thread = worker.between_steps(threading.current_thread)
    assert thread.result(DEADLINE_SECONDS).name == "engine"
    with pytest.raises(ConflictError, match="candidate staged is none"):
        worker.between_steps(lambda: engine.promote("sha256:absent")).result(DEADLINE_SECONDS)


def test_a_cancelled_request_gets_its_final_progress(start) -> None:
    worker, _ = start()
    heard = queue.Queue()
    worker.submit(_request("a", 200), heard.put)
    heard.get(timeout=DEADLINE_SECONDS)
    worker.cancel("a")
    assert _finished(heard)[1] == "cancelled"


def test_a_failing_step_ends_only_its_requests(start, monkeypatch) -> None:
    worker, engine = start()
    heard = queue.Queue()

    def broken() -> list[Progress]:
        monkeypatch.undo()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine, "step", broken)
    worker.submit(_request("a", 50), heard.put)
    assert _finished(heard)[1] == "error"
    worker.submit(_request("b"), heard.put)
    assert _finished(heard)[1] == "length"


def test_stopping_drains_what_runs_and_refuses_the_rest(start) -> None:
    worker, _ = start()
    heard = queue.Queue()
    worker.submit(_request("a", 60), heard.put)
    worker.stop(drain_seconds=DEADLINE_SECONDS)
    assert _finished(heard)[1] == "length"
    with pytest.raises(UnavailableError, match="stopping"):
        worker.submit(_request("b"), heard.put)


def test_a_call_that_raises_ends_neither_the_thread_nor_other_requests(start, monkeypatch) -> None:
    worker, engine = start()
    heard, refused = queue.Queue(), queue.Queue()
    submit = engine.submit
    monkeypatch.setattr(
        engine, "submit", lambda request: submit(request) if request.id != "bad" else 1 / 0
    )
    worker.submit(_request("a", 100), heard.put)
    worker.submit(_request("bad"), refused.put)
    assert _finished(refused) == ([], "error")
    worker.submit(_request("b"), lambda _: 1 / 0)
    assert _finished(heard)[1] == "length"
    again = queue.Queue()
    worker.submit(_request("c"), again.put)
    assert _finished(again)[1] == "length"


def test_a_request_that_the_engine_lost_still_ends(start, monkeypatch) -> None:
    worker, engine = start()

    def breaks_once(*arguments) -> None:
        monkeypatch.undo()
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine.runner, "begin", breaks_once)
    heard = queue.Queue()
    worker.submit(_request("lost"), heard.put)
    assert _finished(heard) == ([], "error")
    after = queue.Queue()
    worker.submit(_request("next"), after.put)
    assert _finished(after)[1] == "length"
    assert worker.problem == ""


def test_an_engine_that_cannot_even_fail_is_said_to(start, monkeypatch) -> None:
    monkeypatch.setattr("aurora_inference.native.worker._BROKEN_PAUSE_SECONDS", 0.01)
    worker, engine = start()
    monkeypatch.setattr(engine, "step", lambda: 1 / 0)
    monkeypatch.setattr(engine, "fail_all", lambda: 1 / 0)
    for number in range(3):
        heard = queue.Queue()
        worker.submit(_request(f"r{number}"), heard.put)
        assert _finished(heard) == ([], "error")
    assert worker.problem == "decode steps fail: ZeroDivisionError"
    monkeypatch.undo()


def test_a_step_that_hangs_is_a_problem_until_it_ends(start, monkeypatch) -> None:
    worker, _ = start()
    begun, release = threading.Event(), threading.Event()

    def hangs() -> None:
        begun.set()
        release.wait(DEADLINE_SECONDS)

    done = worker.between_steps(hangs)
    assert begun.wait(DEADLINE_SECONDS)
    assert worker.problem == ""
    monkeypatch.setattr("aurora_inference.native.worker._HANGING_SECONDS", 0.0)
    assert "a decode step has taken 0 s so far" in worker.problem
    release.set()
    done.result(DEADLINE_SECONDS)
    monkeypatch.undo()
    assert worker.between_steps(lambda: worker.problem).result(DEADLINE_SECONDS) == ""
