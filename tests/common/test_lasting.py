"""What fails for a while is told, and no longer once it is over."""

import pytest

from aurora_common.lasting import LASTING_SECONDS, LastingFailures


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_only_what_lasts_is_told_with_its_newest_cause(clock):
    failures = LastingFailures(clock=clock)
    failures.failed("a", "first")
    clock.now += LASTING_SECONDS - 1
    failures.failed("a", "second")
    assert failures
    assert failures.lasting() == {}
    clock.now += 1
    assert failures.lasting() == {"a": "second"}
    failures.succeeded("a")
    failures.failed("a", "third")
    assert failures.lasting() == {}


def test_others_are_forgotten(clock):
    failures = LastingFailures(clock=clock)
    failures.failed("a", "x")
    failures.failed("b", "y")
    failures.retain({"b"})
    clock.now += LASTING_SECONDS
    assert failures.lasting() == {"b": "y"}


def test_one_that_is_not_repeated_is_over(clock):
    failures = LastingFailures(quiet_seconds=30, clock=clock)
    for _ in range(3):
        failures.failed("a", "x")
        clock.now += 20
    assert failures.lasting() == {"a": "x"}
    clock.now += 20
    assert not failures
    assert failures.lasting() == {}
    # It begins anew.
    failures.failed("a", "x")
    clock.now += 1
    assert failures.lasting() == {}
