"""The recursion against its closed forms, and against a simulation of steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_trainer.judge.renewal import expected_steps

acceptances = st.lists(st.floats(0, 1), min_size=1, max_size=30)
drafted = st.integers(1, 9)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("length", [1, 3, 8, 20])
def test_nothing_and_everything_accepted(count, length):
    assert expected_steps(np.zeros(count), length) == count
    assert expected_steps(np.ones(count), length) == math.ceil(count / (length + 1))


def test_one_draft_for_two_tokens():
    # The first is accepted, or a second step is needed; the last needs no other.
    assert expected_steps(np.array([0.25, 0.9]), 1) == pytest.approx(1 + 0.75)


def test_chances_may_depend_on_the_place_in_the_step():
    by_step = np.array([[0.5, 0.0], [1.0, 0.25], [0.9, 0.4]])
    # A second step begins at the second token, or at the third if that is rejected as the second.
    assert expected_steps(by_step, 2) == pytest.approx(1 + 0.5 + 0.5 * 0.75)


def test_chances_that_do_not_depend_on_it_may_be_given_either_way():
    chances = np.random.default_rng(1).random(25)
    by_step = np.repeat(chances[:, None], 3, axis=1)
    assert expected_steps(by_step, 3) == expected_steps(chances, 3)


def test_without_tokens_no_step():
    assert expected_steps(np.zeros(0), 3) == 0


def test_it_is_the_mean_of_simulated_steps():
    random = np.random.default_rng(0)
    chances = random.random(25)
    for length in (1, 2, 5):
        simulated = [_simulated_steps(chances, length, random) for _ in range(4000)]
        error = np.std(simulated) / math.sqrt(len(simulated))
        assert abs(np.mean(simulated) - expected_steps(chances, length)) < 4 * error


def _simulated_steps(chances, length, random):
    position = steps = 0
    while position < len(chances):
        steps += 1
        accepted = 0
        while (
            accepted < length
            and position + accepted < len(chances)
            and random.random() < chances[position + accepted]
        ):
            accepted += 1
        position += accepted + 1
    return steps


@settings(deadline=None)
@given(acceptances, drafted)
def test_it_is_within_its_bounds(chances, length):
    steps = expected_steps(np.array(chances), length)
    assert math.ceil(len(chances) / (length + 1)) - 1e-9 <= steps <= len(chances) + 1e-9


@settings(deadline=None)
@given(acceptances, drafted, st.data())
def test_more_acceptance_anywhere_never_takes_more_steps(chances, length, data):
    position = data.draw(st.integers(0, len(chances) - 1))
    raised = chances.copy()
    raised[position] = data.draw(st.floats(chances[position], 1))
    before, after = (expected_steps(np.array(each), length) for each in (chances, raised))
    assert after <= before + 1e-9


@settings(deadline=None)
@given(acceptances, drafted)
def test_longer_drafts_never_take_more_steps(chances, length):
    shorter, longer = (expected_steps(np.array(chances), each) for each in (length, length + 1))
    assert longer <= shorter + 1e-9
