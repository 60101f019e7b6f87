"""Outcomes come in the order of admission and are confirmed by the reader's cursor."""

from __future__ import annotations

import random

import pytest

from aurora_inference.contract import Cursor, Served
from aurora_inference.slots import outcome_log
from aurora_inference.slots.outcome_log import OutcomeLog

START = Cursor("", 0)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    made = OutcomeLog("i", clock=clock)
    made.follow("r1")
    return made


def admit(log, arm="stable"):
    return log.admit(arm, stable_digest="s", candidate_digest="c", candidate_bps=5000)


def end(log, sequence, rollout_id="r1", *, accepted=3):
    log.end(rollout_id, sequence, "completed", Served(8, accepted, time_per_output_token_us=1500))


def _record(log, count, rollout_id="r1"):
    for accepted in range(count):
        end(log, admit(log), rollout_id, accepted=accepted)


def listed(log, cursor=START, limit=1000):
    return [each.sequence for each in log.page("r1", cursor, limit).outcomes]


def test_an_outcome_tells_the_drafts_that_could_have_been_drawn(log):
    end(log, admit(log, "candidate"))
    (outcome,) = log.page("r1", START, 10).outcomes
    assert (outcome.arm, outcome.stable_digest, outcome.candidate_digest) == ("candidate", "s", "c")
    assert (outcome.ending, outcome.served.accepted_tokens, outcome.candidate_bps) == (
        "completed",
        3,
        5000,
    )


def test_an_outcome_waits_for_those_admitted_before_it(log):
    first, second, third = admit(log), admit(log), admit(log)
    end(log, third)
    end(log, second)
    assert listed(log) == []
    end(log, first)
    assert listed(log) == [first, second, third]


def test_the_order_is_the_same_however_they_end_and_are_read():
    def read(order, limit):
        log, cursor, found = OutcomeLog("i"), START, []
        log.follow("r1")
        for _ in range(20):
            admit(log)
        for sequence in order:
            end(log, sequence, accepted=sequence % 7)
            page = log.page("r1", cursor, limit)
            cursor = page.next
            found += page.outcomes
        while page.outcomes:
            page = log.page("r1", cursor, limit)
            cursor = page.next
            found += page.outcomes
        return found

    orders = [list(range(1, 21)) for _ in range(5)]
    for seed, order in enumerate(orders):
        random.Random(seed).shuffle(order)
    expected = read(range(1, 21), 1000)
    assert len(expected) == 20
    assert [read(order, limit) for order in orders for limit in (1, 3, 100)] == [expected] * 15


def test_one_that_hangs_is_given_up_at_its_deadline(log, clock):
    hanging, other = admit(log, "candidate"), admit(log)
    end(log, other)
    clock.now = 599.0
    assert listed(log) == []
    clock.now = 600.0
    given_up, after = log.page("r1", START, 10).outcomes
    assert (given_up.sequence, given_up.arm, given_up.ending) == (hanging, "candidate", "timed_out")
    assert after.ending == "completed"


def test_what_ends_after_its_deadline_stays_given_up_whoever_looked(log, clock):
    late = admit(log)
    clock.now = 600.0
    end(log, late)
    assert [each.ending for each in log.page("r1", START, 10).outcomes] == ["timed_out"]


def test_one_that_hangs_holds_up_a_bounded_number(log, monkeypatch):
    monkeypatch.setattr(outcome_log, "_DEADLINE_REQUESTS", 4)
    admit(log)
    _record(log, 3)
    assert listed(log) == []
    _record(log, 1)
    assert listed(log) == [1, 2, 3, 4, 5]


def test_the_newest_are_kept_and_the_cursor_goes_on(log, monkeypatch):
    monkeypatch.setattr(outcome_log, "_MAX_OUTCOMES", 4)
    _record(log, 6)
    page = log.page("r1", Cursor("i", 1), 2)
    assert [each.sequence for each in page.outcomes] == [3, 4]
    assert listed(log, page.next) == [5, 6]
    assert log.page("r1", page.next, 10).unlisted == {"stable": 0, "candidate": 0}


def test_a_page_counts_what_it_does_not_list(log):
    end(log, admit(log))
    admit(log, "candidate")
    end(log, admit(log, "candidate"))
    admit(log)
    page = log.page("r1", START, 10)
    assert [each.sequence for each in page.outcomes] == [1]
    assert page.unlisted == {"stable": 1, "candidate": 2}
    assert log.page("r1", START, 0).unlisted == {"stable": 2, "candidate": 2}


def test_an_end_counts_once(log):
    sequence = admit(log)
    end(log, sequence, accepted=3)
    end(log, sequence, accepted=7)
    assert [each.served.accepted_tokens for each in log.page("r1", START, 10).outcomes] == [3]


def test_the_end_of_another_rollouts_request_changes_nothing(log):
    sequence = admit(log)
    log.follow("r2")
    admit(log)
    end(log, sequence, "r1")
    assert log.page("r2", START, 10).outcomes == ()


def test_another_rollout_starts_an_empty_log(log):
    _record(log, 3)
    log.follow("r2")
    _record(log, 1, "r2")
    assert log.page("r1", START, 10).outcomes == ()
    assert [each.sequence for each in log.page("r2", START, 10).outcomes] == [1]


def test_the_same_rollout_again_goes_on_with_its_numbers(log):
    _record(log, 2)
    in_flight = admit(log)
    log.follow("")
    end(log, in_flight)
    log.follow("r1")
    _record(log, 1)
    assert listed(log) == [1, 2, 3, 4]


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
