"""Every sample is assigned once, and no share ends much later than the others."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from aurora_trainer.replica.shares import shares

COSTS = st.lists(st.integers(1, 2000), min_size=1, max_size=64)
COUNTS = st.integers(1, 9)
STARTS = st.lists(st.integers(-5000, 5000), min_size=1, max_size=9)


@given(COSTS, STARTS, st.integers(1, 8))
def test_every_sample_is_in_one_share_and_the_first_and_the_trial_have_one(costs, starts, trial):
    trial = trial if trial < len(starts) else None
    found = shares(costs, starts, trial=trial)
    assert sorted(number for share in found for number in share) == list(range(len(costs)))
    assert len(found) == len(starts)
    assert all(share == tuple(sorted(share)) for share in found)
    assert found[0]
    assert trial is None or found[trial] or max(map(len, found)) == 1


@given(COSTS, COUNTS)
def test_the_last_ends_at_most_a_sample_after_the_mean(costs, count):
    loads = [sum(costs[number] for number in share) for share in shares(costs, [0.0] * count)]
    assert max(loads) <= sum(costs) / count + max(costs)


@given(COSTS, STARTS)
def test_the_same_samples_are_divided_in_the_same_way(costs, starts):
    assert shares(costs, starts) == shares(list(costs), list(starts))


def test_long_and_short_are_evened_out():
    assert shares([7, 2, 5, 4], [0, 0]) == ((0, 1), (2, 3))


def test_a_share_that_begins_later_gets_less():
    assert shares([1] * 10, [0, 4]) == ((0, 1, 2, 3, 4, 6, 8), (5, 7, 9))


def test_a_share_that_begins_after_the_others_end_gets_nothing():
    assert shares([5, 1, 3], [0, 9, 100]) == ((0, 1, 2), (), ())
    assert shares([5, 1, 3], [0, 7, 100]) == ((0, 2), (1,), ())


def test_a_trial_gets_the_cheapest_sample():
    assert shares([5, 1, 3], [0, 9, 100], trial=2) == ((0, 2), (), (1,))
    assert shares([5], [0, 100], trial=1) == ((0,), ())


def test_the_first_keeps_one_however_late_it_begins():
    assert shares([5, 1, 3], [math.inf, 0, 0]) == ((1,), (0,), (2,))
    assert shares([5, 3], [0, -9, -9], trial=2) == ((0,), (), (1,))
