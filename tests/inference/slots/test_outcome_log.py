"""Outcomes are numbered within a rollout and confirmed by the reader's cursor."""

from __future__ import annotations

import pytest

from aurora_inference.contract import Cursor, Outcome
from aurora_inference.slots.outcome_log import OutcomeLog

START = Cursor("", 0)


@pytest.fixture
def log():
    made = OutcomeLog("i")
    made.follow("r1")
    return made


def _record(log, count, rollout_id="r1"):
    for accepted in range(count):
        log.record(rollout_id, Outcome("stable", 5000, 8, accepted, False, 1500))


def test_an_outcome_of_another_rollout_is_not_recorded(log):
    _record(log, 2, "r0")
    _record(log, 1, "")
    assert log.page("r1", START, 10).outcomes == ()


def test_another_rollout_starts_an_empty_log(log):
    _record(log, 3)
    log.follow("r2")
    _record(log, 1, "r2")
    assert log.page("r1", START, 10).outcomes == ()
    assert [each.sequence for each in log.page("r2", START, 10).outcomes] == [1]


def test_the_same_rollout_again_keeps_the_log(log):
    _record(log, 3)
    log.follow("r1")
    assert len(log.page("r1", START, 10).outcomes) == 3


def test_it_is_drained_once_a_cursor_confirms_the_last_outcome(log):
    assert log.drained
    _record(log, 3)
    page = log.page("r1", START, 2)
    assert not log.drained
    page = log.page("r1", page.next, 2)
    assert page.next == Cursor("i", 3)
    assert not log.drained
    log.page("r1", page.next, 2)
    assert log.drained


def test_a_cursor_of_another_instance_confirms_nothing(log):
    _record(log, 1)
    page = log.page("r1", Cursor("gone", 1), 10)
    assert len(page.outcomes) == 1
    assert not log.drained


def test_it_is_drained_without_a_rollout(log):
    _record(log, 1)
    log.follow("")
    assert log.drained
