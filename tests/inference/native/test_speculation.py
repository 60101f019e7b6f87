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
        controller.cost.observe(batch, length, STEP * (1 + cost_of_a_token * length))
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
    controller.cost.observe(1, 0, STEP)
    controller.cost.observe(8, 6, 4 * STEP)
    for _ in range(3):
        controller.cost.observe(8, controller.choose(["good"] * 8, minimum=0), 1.5 * STEP)
    controller.cost.observe(8, 0, 1.5 * STEP)
    assert controller.choose(["good"] * 8, minimum=0) > 0


def test_an_unmeasured_length_is_estimated_from_its_neighbour() -> None:
    cost = StepCost()
    cost.observe(1, 0, STEP)
    cost.observe(1, 2, 1.2 * STEP)
    assert cost.seconds(1, 4) == pytest.approx(1.4 * STEP)
    assert cost.seconds(8, 2) == pytest.approx(1.2 * STEP)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=50))
def test_more_drafts_never_mean_fewer_expected_tokens(steps: list[tuple[int, int]]) -> None:
    estimate = AcceptanceEstimate(6)
    for drafted, accepted in steps:
        estimate.observe(drafted, min(drafted, accepted))
    expected = estimate.expected_tokens()
    assert expected[0] == 1.0
    assert all(later >= earlier for earlier, later in pairwise(expected))
    assert expected[-1] <= 7.0
