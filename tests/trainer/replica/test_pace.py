"""Replicas that lag get less, and those that lag too much only an occasional retry."""

from __future__ import annotations

from aurora_trainer.replica.discovery import Place
from aurora_trainer.replica.pace import Paces

A, B = Place("10.0.0.1:1"), Place("10.0.0.2:1")
COSTS = [1.0] * 10


def given(paces, *places):
    _, parts = paces.divided(COSTS, places)
    return {place: len(part) for place, part in parts.items()}


def lagging(lag, *places):
    paces = Paces()
    for place in places:
        paces.answered(place, 999.0)
        paces.answered(place, lag)
    return paces


def test_replicas_without_history_get_equal_shares():
    paces = Paces()
    assert given(paces, A) == {A: 5}
    assert paces.is_first(A)


def test_the_first_answer_is_ignored_also_after_a_failure():
    paces = Paces()
    paces.answered(A, 999.0)
    assert given(paces, A) == {A: 5}
    assert not paces.is_first(A)
    paces.answered(A, 4.0)
    paces.failed(A)
    assert paces.is_first(A)
    paces.answered(A, 999.0)
    assert given(paces, A) == {A: 3}


def test_replicas_that_lag_get_less():
    paces = lagging(4.0, A)
    assert given(paces, A) == {A: 3}
    paces.answered(A, 8.0)
    # Half of what is new: a lag of 6.
    assert given(paces, A) == {A: 2}


def test_a_replica_that_lags_by_a_whole_step_is_excluded_and_retried():
    paces = Paces()
    paces.given_up(A, 20.0)
    # Steps of 10 each, until a trial costs a twentieth of them.
    for _ in range(40):
        assert given(paces, A) == {}
    assert given(paces, A, B) == {A: 1, B: 5}
    paces.given_up(A, 30.0)
    assert given(paces, A, B) == {B: 5}


def test_a_trial_that_is_answered_in_time_counts_wholly():
    paces = Paces()
    paces.given_up(A, 20.0)
    while not given(paces, A):
        pass
    paces.answered(A, 2.0)
    assert given(paces, A) == {A: 4}


def test_excluded_replicas_are_remembered_and_vanished_ones_forgotten():
    paces = lagging(4.0, A, B)
    assert given(paces) == {}
    paces.keep({A})
    assert (paces.is_first(A), paces.is_first(B)) == (False, True)
    assert given(paces, A) == {A: 3}
