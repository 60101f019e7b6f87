"""The speculation length follows the measurements."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_inference.native.speculation import AcceptanceEstimate, LengthController, StepCost

STEP = 0.010


def _controller(rate: float, *, cost_of_a_token: float, batch: int = 1) -> LengthController:
    """A controller that has seen a draft with this acceptance rate and relative cost per token."""
    controller = LengthController(6, adaptive=True)
    for round_ in range(400):
        length = round_ % 7
        controller.observe_cost(batch, length, STEP * (1 + cost_of_a_token * length), ngram=False)
        accepted = 0
        while accepted < length and (round_ * 7919 + accepted * 104729) % 1000 < rate * 1000:
            accepted += 1
        controller.observe_acceptance("good", length, accepted)
    return controller


def test_a_good_cheap_draft_drafts_far() -> None:
    assert _controller(0.95, cost_of_a_token=0.05).choose(["good"], minimum=0) >= 5


def test_a_draft_that_does_not_pay_is_turned_off() -> None:
    assert _controller(0.1, cost_of_a_token=0.3).choose(["good"], minimum=0) == 0


def test_a_middling_draft_gets_a_middling_length() -> None:
    length = _controller(0.7, cost_of_a_token=0.15).choose(["good"], minimum=0)
    assert 1 <= length <= 5


def test_the_minimum_holds_whatever_pays() -> None:
    assert _controller(0.1, cost_of_a_token=0.5).choose(["good"], minimum=1) == 1


def test_no_draft_means_no_speculation() -> None:
    assert _controller(0.9, cost_of_a_token=0.1).choose([None, None], minimum=1) == 0


def test_a_fixed_length_is_always_the_longest() -> None:
    assert LengthController(4, adaptive=False).choose(["any"], minimum=0) == 4


def test_a_draft_turned_off_is_probed_occasionally() -> None:
    controller = _controller(0.05, cost_of_a_token=0.5)
    lengths = [controller.choose(["good"], minimum=0) for _ in range(200)]
    probes = sum(length > 0 for length in lengths)
    assert 2 <= probes <= 6


def test_a_draft_that_recovers_is_used_again() -> None:
    controller = _controller(0.05, cost_of_a_token=0.05)
    for _ in range(60):
        controller.observe_acceptance("good", 2, 2)
    assert controller.choose(["good"], minimum=0) > 1


def test_a_cold_first_step_is_soon_forgotten() -> None:
    cost = StepCost()
    cost.observe(1, 4, 3 * STEP)
    for _ in range(4):
        cost.observe(1, 4, STEP)
    assert cost.seconds(1, 4) < 1.2 * STEP


def test_a_stall_of_the_machine_does_not_count_as_cost() -> None:
    cost = StepCost()
    for _ in range(10):
        cost.observe(1, 0, STEP)
        cost.observe(1, 4, 1.5 * STEP)
    cost.observe(1, 4, 100 * STEP)
    assert cost.seconds(1, 4) == pytest.approx(1.5 * STEP)


def test_a_length_measured_before_its_plain_step_is_still_compared_with_it() -> None:
    controller = LengthController(6, adaptive=True)
    for _ in range(20):
        controller.observe_acceptance("good", 6, 6)
    controller.observe_cost(1, 0, STEP, ngram=False)
    controller.observe_cost(8, 6, 4 * STEP, ngram=False)
    for _ in range(3):
        controller.observe_cost(
            8, controller.choose(["good"] * 8, minimum=0), 1.5 * STEP, ngram=False
        )
    controller.observe_cost(8, 0, 1.5 * STEP, ngram=False)
    assert controller.choose(["good"] * 8, minimum=0) > 0


def test_an_unmeasured_length_is_estimated_from_its_neighbour() -> None:
    cost = StepCost()
    cost.observe(1, 0, STEP)
    cost.observe(1, 2, 1.2 * STEP)
    assert cost.seconds(1, 4) == pytest.approx(1.4 * STEP)
    assert cost.seconds(8, 2) == pytest.approx(1.2 * STEP)


def _matching(rate: float) -> list[float]:
    """The expected tokens of drafting up to 6 by n-grams that hold with this rate."""
    return [sum(rate**place for place in range(length + 1)) for length in range(7)]


def _measured_by_ngram(*, cost_of_a_token: float, batch: int = 1) -> LengthController:
    """A controller that has seen what steps cost in which only n-grams were drafted."""
    controller = LengthController(6, adaptive=True)
    for length in range(7):
        seconds = STEP * (1 + cost_of_a_token * length)
        controller.observe_cost(batch, length, seconds, ngram=True)
    return controller


def test_ngrams_are_drafted_where_they_hold_and_nowhere_else() -> None:
    controller = _measured_by_ngram(cost_of_a_token=0.1)
    assert controller.choose([None], [_matching(0.95)], minimum=0) >= 5
    assert controller.choose([None], [_matching(0.05)], minimum=0) == 0
    assert controller.choose([None], [], minimum=0) == 0


def test_one_row_that_matches_must_pay_for_those_that_do_not() -> None:
    controller = _measured_by_ngram(cost_of_a_token=0.3, batch=8)
    assert controller.choose([None] * 8, [_matching(0.95)], minimum=0) == 0
    assert controller.choose([None] * 8, [_matching(0.95)] * 8, minimum=0) >= 4


def test_a_draft_is_not_taken_to_cost_as_little_as_ngrams() -> None:
    controller = _controller(0.5, cost_of_a_token=0.6)
    for length in range(7):
        controller.observe_cost(1, length, STEP * (1 + 0.01 * length), ngram=True)
    assert controller.choose(["good"], minimum=0) == 0
    assert controller.choose([None], [_matching(0.5)], minimum=0) > 0


def test_ngrams_alone_need_no_evidence() -> None:
    controller = _measured_by_ngram(cost_of_a_token=0.5)
    assert controller.choose([None], [_matching(0.05)], minimum=1) == 0


def test_a_fixed_length_is_drafted_by_ngrams_that_more_likely_hold_than_not() -> None:
    controller = LengthController(4, adaptive=False)
    assert controller.choose([None], [_matching(0.6)], minimum=0) == 4
    assert controller.choose([None, None], [_matching(0.4)], minimum=0) == 0


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=50))
def test_more_drafts_never_mean_fewer_expected_tokens(steps: list[tuple[int, int]]) -> None:
    estimate = AcceptanceEstimate(6)
    for drafted, accepted in steps:
        estimate.observe(drafted, min(drafted, accepted))
    expected = estimate.expected_tokens()
    assert expected[0] == 1.0
    assert all(later >= earlier for earlier, later in pairwise(expected))
    assert expected[-1] <= 7.0
