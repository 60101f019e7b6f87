import logging

import pytest

from aurora_common.outage import Outage


@pytest.fixture
def clock():
    now = [0.0]

    def read():
        return now[0]

    read.advance = lambda seconds: now.__setitem__(0, now[0] + seconds)
    return read


@pytest.fixture
def outage(clock):
    return Outage(logging.getLogger("test"), clock=clock)


def test_a_failure_each_second_is_logged_ever_more_rarely(outage, clock, caplog):
    for _ in range(3600):
        outage.failed("not serving", "refused")
        clock.advance(1)
    # At 0, 1, 3, 7, 15 and 31 minutes.
    lasted = [record.fields["lasted_seconds"] for record in caplog.records]
    assert lasted == [0, 60, 180, 420, 900, 1860]


def test_a_new_reason_is_logged_at_once_but_not_without_end(outage, caplog):
    for number in range(100):
        outage.failed("not serving", f"port {number % 50}")
    assert [record.fields["reason"] for record in caplog.records] == [
        f"port {number}" for number in range(5)
    ]


def test_the_end_says_how_long_it_lasted_and_the_next_is_news(outage, clock, caplog):
    caplog.set_level(logging.INFO)
    outage.failed("not serving", "refused")
    clock.advance(7)
    outage.ended("serving")
    outage.failed("not serving", "refused")
    assert [(record.message, record.fields["lasted_seconds"]) for record in caplog.records] == [
        ("not serving", 0),
        ("serving", 7),
        ("not serving", 0),
    ]
