"""Requests that can never run are refused with the reason; the others run in order."""

from __future__ import annotations

import pytest

from aurora_common.errors import InvalidInputError
from aurora_inference.contract import Request, Sampling
from aurora_inference.native.scheduler import Scheduler


def _request(name: str = "a", *, prompt: int = 3, max_tokens: int = 4, **sampling) -> Request:
    return Request(name, tuple(range(prompt)), max_tokens, Sampling(**sampling))


def _scheduler() -> Scheduler:
    return Scheduler(max_batch=2, max_context_tokens=16)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (_request(prompt=0), "no tokens"),
        (_request(max_tokens=0), "max_tokens is 0"),
        (_request(max_tokens=-3), "max_tokens is -3"),
        (_request(prompt=13), "13 tokens and max_tokens is 4, together 17.*holds 16"),
        (_request(temperature=-0.1), "temperature is -0.1"),
        (_request(temperature=float("nan")), "temperature is nan"),
        (_request(top_p=0.0), "top_p is 0.0"),
        (_request(top_p=1.5), "top_p is 1.5"),
        (_request(top_k=-1), "top_k is -1"),
    ],
)
def test_a_request_that_can_never_run_is_refused(request_: Request, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        _scheduler().submit(request_)


def test_requests_run_first_come_first_served_up_to_the_batch() -> None:
    scheduler = _scheduler()
    scheduler.submit(_request("a"))
    scheduler.submit(_request("b"))
    first = scheduler.next(0)
    assert first is not None
    assert first.id == "a"
    assert scheduler.next(2) is None
    assert scheduler.waiting == 1


def test_a_waiting_request_can_be_withdrawn() -> None:
    scheduler = _scheduler()
    scheduler.submit(_request("a"))
    assert scheduler.withdraw("a")
    assert not scheduler.withdraw("a")
    assert scheduler.next(0) is None
