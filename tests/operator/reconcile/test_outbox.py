"""Reports go out in order, at least once, and hold nothing up."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_operator.domain.report.report import Report
from aurora_operator.domain.status.deployment import Verdict
from aurora_operator.reconcile import outbox
from aurora_operator.reconcile.outbox import Outbox

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def report(number):
    at = NOW + timedelta(minutes=number)
    verdict = Verdict(f"chat-{number}", "c", "sha256:a", "RolledBack", "x", 0, 0, at)
    return Report("serving", "chat", 1, {}, verdict)


class Place:
    """Takes reports, unless it is away."""

    def __init__(self):
        self.got = []
        self.away = 0
        self.refuses = ""
        self.asked = 0
        self.asking = asyncio.Event()

    async def deliver(self, report):
        self.asked += 1
        self.asking.set()
        if self.away:
            self.away -= 1
            raise UnavailableError("nobody listens")
        if report.verdict.id == self.refuses:
            raise InvalidInputError("too large")
        self.got.append(report.verdict.id)


@pytest.fixture
def place():
    return Place()


@pytest.fixture
async def sending(place, monkeypatch):
    monkeypatch.setattr(outbox, "_FIRST_WAIT_SECONDS", 0.001)
    woken, failures = asyncio.Event(), []
    box = Outbox("there", place.deliver, on_sent=woken.set, on_failure=failures.append)
    box.woken, box.failures = woken, failures
    yield box
    await box.close()


async def until_sent(box, *numbers):
    async with asyncio.timeout(20):
        while not {report(number).verdict.key for number in numbers} <= box.sent:
            await box.woken.wait()
            box.woken.clear()


async def twice_asked(place):
    """Then the first failure has been noted."""
    async with asyncio.timeout(20):
        for _ in range(2):
            await place.asking.wait()
            place.asking.clear()


async def test_all_go_out_oldest_first_and_once(place, sending):
    for _ in range(3):
        sending.offer([report(1), report(2)])
    await until_sent(sending, 1, 2)
    sending.offer([report(1), report(2), report(3)])
    await until_sent(sending, 3)
    assert place.got == ["chat-1", "chat-2", "chat-3"]


async def test_a_failure_is_tried_again_and_told_of_once(place, sending):
    place.away = 4
    sending.offer([report(1), report(2)])
    await until_sent(sending, 1, 2)
    assert place.got == ["chat-1", "chat-2"]
    assert place.asked == 6
    assert sending.failures == ["nobody listens"]
    assert sending.lasting_failure == ""


async def test_one_that_is_refused_for_good_does_not_hold_up_the_others(place, sending):
    place.refuses = "chat-1"
    sending.offer([report(1), report(2)])
    await until_sent(sending, 1, 2)
    assert place.got == ["chat-2"]
    assert place.asked == 2
    assert sending.failures == []


async def test_an_outage_that_lasts_has_a_cause(place, sending, monkeypatch):
    monkeypatch.setattr("aurora_common.lasting.LASTING_SECONDS", 0.0)
    place.away = 1_000_000
    sending.offer([report(1)])
    await twice_asked(place)
    assert sending.lasting_failure == "nobody listens"
    # What the history has forgotten is not tried for ever.
    sending.offer([])
    assert sending.lasting_failure == ""


async def test_what_the_status_has_as_sent_is_forgotten(sending):
    sending.offer([report(1)])
    await until_sent(sending, 1)
    sending.offer([report(2)])
    await until_sent(sending, 2)
    assert sending.sent == {report(2).verdict.key}


async def test_closing_ends_it(place, sending):
    place.away = 1_000_000
    sending.offer([report(1)])
    await twice_asked(place)
    await sending.close()
    asked = place.asked
    await asyncio.sleep(0)
    assert place.asked == asked
