"""What a step costs with each draft, and what that makes of the steps saved."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_operator.domain.rollout.clause import clauses
from aurora_operator.domain.rollout.evidence import Evidence, observe
from aurora_operator.domain.rollout.interval import half_width
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.rollout.replay import Replay, Score, replayed
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Clock,
    Observed,
    Promoting,
    RolledBack,
    RolloutPlan,
    advance,
    is_better,
)
from aurora_operator.domain.rollout.step_cost import (
    LEAST_REQUESTS,
    StepCost,
    at_least,
    at_most,
    estimated,
)
from aurora_operator.domain.rollout.time_saved import saved_at_least, saved_with_cost

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SURE = math.log(100)
PLAN = RolloutPlan((5, 50), "0.01", 0, 300, 600.0, method="Replay")


def timed(ratio):
    return Outcome(
        "candidate",
        5000,
        10,
        6,
        step_time_us=round(20_000 * ratio),
        stable_step_time_us=20_000,
    )


def cost_of(ratios):
    cost = StepCost()
    for ratio in ratios:
        cost = cost.observe(timed(ratio))
    return cost


def noisy(mean, count, seed=0):
    draw = random.Random(seed)
    return [mean * draw.lognormvariate(0.0, 0.05) for _ in range(count)]


def live(ratios):
    """The evidence of as many requests of either arm; nothing but their times speaks against it."""
    evidence = Evidence(replay=Replay())
    for ratio in ratios:
        evidence = observe(evidence, timed(ratio))
        evidence = observe(evidence, Outcome("stable", 5000, 10, 5))
    return evidence


def with_replay(evidence, saved, count=300, *, shapes_differ=False):
    draw = random.Random(2)
    replay = Replay()
    for number in range(1, count + 1):
        stable = draw.lognormvariate(3.0, 0.6)
        candidate = stable * (1 - draw.gauss(saved, 0.05))
        score = Score(f"{number}-0", "", 50, stable, candidate, shapes_differ)
        replay = replayed(replay, score)
    return replace(evidence, replay=replay)


def next_state(evidence):
    state = Analyzing(1, NOW, 0, Clock(NOW))
    return advance(state, plan=PLAN, evidence=evidence, observed=Observed(), now=NOW)


def test_a_draft_of_equal_acceptance_whose_steps_take_longer_is_rolled_back():
    evidence = with_replay(live(noisy(1.1, 60)), 0.0)
    assert next_state(evidence) == RolledBack("StepCostHarm")
    harm = next(one for one in clauses(PLAN, evidence) if one.name == "NoStepCostHarm")
    assert not harm.holds
    assert harm.found < 0


def test_one_that_saves_more_than_its_steps_cost_is_promoted():
    evidence = with_replay(live(noisy(1.1, 200)), 0.25, shapes_differ=True)
    assert isinstance(next_state(evidence), Promoting)


def test_one_that_saves_less_than_its_steps_cost_is_not():
    evidence = with_replay(live(noisy(1.2, 200)), 0.05)
    assert next_state(replace(evidence, step_cost=None)) == Promoting("ReplayBetter", NOW)
    assert next_state(evidence) == RolledBack("StepCostHarm")


def test_of_another_shape_it_is_not_promoted_before_its_steps_were_timed():
    known = with_replay(live(noisy(1.0, 200)), 0.1, shapes_differ=True)
    unknown = replace(known, step_cost=cost_of(noisy(1.0, LEAST_REQUESTS - 1)))
    assert (is_better(known, PLAN), is_better(unknown, PLAN)) == (True, False)
    assert [one.name for one in clauses(PLAN, unknown) if not one.holds] == ["StepCostKnown"]


def test_what_timing_cannot_tell_counts_for_nothing():
    cost = cost_of(noisy(1.01, 500))
    assert [at_least(cost, threshold=SURE), at_most(cost, threshold=SURE)] == [1.0, 1.0]
    few = cost_of(noisy(1.5, LEAST_REQUESTS - 1))
    assert [at_least(few, threshold=SURE), estimated(few)] == [1.0, 1.0]


def test_a_cheaper_step_earns_nothing():
    cost = cost_of(noisy(0.7, 500))
    assert [at_most(cost, threshold=SURE), estimated(cost)] == [1.0, 1.0]


def test_the_bounds_are_around_the_mean_and_one_stall_does_not_outweigh_the_rest():
    cost = cost_of(noisy(1.3, 100))
    assert 1.25 < at_least(cost, threshold=SURE) < estimated(cost) < at_most(cost, threshold=SURE)
    assert cost_of([1.0] * 99 + [1000.0]).excess == pytest.approx(0.03)


@given(
    st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=2, max_size=30),
    st.floats(1.0, 2.0),
)
def test_the_interval_is_that_of_the_differences_at_that_cost(steps, times):
    """Whenever the cost becomes known."""
    replay = Replay()
    for number, (stable, candidate) in enumerate(steps, start=1):
        replay = replayed(replay, Score(f"{number}-0", "", 50, stable, candidate))
    cost = StepCost(10, times - 1)
    known = at_most(cost, threshold=SURE)
    differences = [stable - known * candidate for stable, candidate in steps]
    mean = math.fsum(differences) / len(differences)
    scatter = math.fsum((each - mean) ** 2 for each in differences)
    width = half_width(scatter, len(steps), 0.02)
    found = saved_at_least(replay, threshold=SURE, cost=cost)
    assert found == pytest.approx(mean - width, rel=1e-6, abs=1e-6 * (1 + width))
    if known > 1:
        width = half_width(scatter, len(steps), 0.05)
        most = saved_with_cost(replay, cost)
        assert most == pytest.approx(mean + width, rel=1e-6, abs=1e-6 * (1 + width))
