"""The rule of a rollout, clause by clause: which hold, and which do not yet or not any more.

The decisions are `advance`'s; this says of the same evidence what they rest on, for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

from aurora_operator.domain.rollout.evidence import Evidence, effect_interval
from aurora_operator.domain.rollout.guardrail import GUARDRAILS, MAX_GUARDRAILS
from aurora_operator.domain.rollout.replay import Replay, class_threshold
from aurora_operator.domain.rollout.state import (
    MAX_CRASHES,
    STAGING_SECONDS,
    Analyzing,
    Clock,
    Pending,
    Promoting,
    Replaying,
    RolloutPlan,
    State,
    WaitingForTraffic,
)
from aurora_operator.domain.rollout.step_cost import LEAST_REQUESTS, StepCost
from aurora_operator.domain.rollout.time_saved import (
    is_cost_known,
    is_futile,
    saved_at_least,
    saved_at_most,
    saved_with_cost,
    saves_overall,
)

# Two for each guardrail, and eleven others.
MAX_CLAUSES = 2 * MAX_GUARDRAILS + 16
_DIGITS = 4

# What a promotion asks for.
_FOR_PROMOTION = (
    "Better",
    "SavesOverall",
    "StepCostKnown",
    "MinRequests",
    "LiveNotWorse",
    "WithinMargin",
)

ClauseName = Literal[
    "Better",
    "SavesOverall",
    "StepCostKnown",
    "MinRequests",
    "LiveNotWorse",
    "WithinMargin",
    "NoReplayHarm",
    "NoStepCostHarm",
    "NoClassHarm",
    "NoAcceptanceHarm",
    "NoGuardrailHarm",
    "FewCrashes",
    "GainPossible",
]


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause of the rule that promotes a candidate or ends its rollout.

    Better and the harms but NoStepCostHarm compare logarithms of e-values, StepCostKnown,
    MinRequests and FewCrashes counts, the others basis points.
    """

    name: Annotated[ClauseName, "Which clause."]
    holds: Annotated[bool, "Whether it holds."]
    required: Annotated[float, "The bound that decides."]
    found: Annotated[float | None, "What was measured; absent before that."] = None
    subject: Annotated[str | None, "The guardrail or the requests that it is about."] = None


def clauses(plan: RolloutPlan, evidence: Evidence) -> tuple[Clause, ...]:
    """The whole rule: a candidate is promoted if all hold."""
    return (*for_promotion(plan, evidence), *against_harm(plan, evidence))


def for_promotion(plan: RolloutPlan, evidence: Evidence) -> Iterator[Clause]:
    """What a candidate is promoted for; all hold if and only if `is_better`.

    Of a dry run what replay says of it.
    """
    replay, threshold = evidence.replay, plan.promotion_threshold
    if plan.method == "Replay":
        replay = replay or Replay()
        yield _clause("Better", replay.log_e >= threshold, threshold, replay.log_e)
        yield _saves_overall(plan, replay, evidence.step_cost)
        if replay.shapes_differ:
            timed = 0 if evidence.step_cost is None else evidence.step_cost.requests
            known = is_cost_known(replay, evidence.step_cost)
            yield _clause("StepCostKnown", known, LEAST_REQUESTS, timed)
    else:
        yield _clause("Better", evidence.log_e >= threshold, threshold, evidence.log_e)
    if plan.dry_run:
        return
    enough = evidence.requests >= plan.min_requests
    yield _clause("MinRequests", enough, plan.min_requests, evidence.requests)
    if plan.method == "Replay":
        interval = effect_interval(evidence)
        highest = None if interval is None else interval[1]
        holds = highest is not None and highest > 0 and evidence.candidate.requests > 0
        yield _clause("LiveNotWorse", holds, 0.0, _bps(highest))
    for one in evidence.guardrails:
        effect = one.effect * 10_000
        yield _clause("WithinMargin", not one.holds_back, one.margin_bps, effect, one.name)


def against_harm(plan: RolloutPlan, evidence: Evidence) -> Iterator[Clause]:
    """What ends a rollout once it does not hold any more."""
    replay, threshold = evidence.replay, plan.threshold
    if replay is not None:
        yield _clause("NoReplayHarm", replay.log_harm < threshold, threshold, replay.log_harm)
        if replay.classes:
            yield _no_class_harm(replay, threshold)
        highest = saved_at_most(replay)
        possible = not is_futile(replay, min_effect=plan.min_effect)
        yield _clause("GainPossible", possible, plan.min_effect_bps, _share_bps(replay, highest))
    if plan.dry_run:
        return
    if replay is not None:
        most = saved_with_cost(replay, evidence.step_cost)
        if most is not None:
            yield _clause("NoStepCostHarm", most >= 0, 0.0, _share_bps(replay, most))
    harm = evidence.log_harm
    yield _clause("NoAcceptanceHarm", harm < threshold, threshold, harm)
    for one in evidence.guardrails:
        holds = one.name not in GUARDRAILS or one.log_harm < threshold
        yield _clause("NoGuardrailHarm", holds, threshold, one.log_harm, one.name)
    yield _clause("FewCrashes", evidence.crashes < MAX_CRASHES, MAX_CRASHES, evidence.crashes)


def telling(found: tuple[Clause, ...]) -> tuple[Clause, ...]:
    """Those that a history keeps: what a promotion asks for, and the harm that was found."""
    return tuple(one for one in found if one.name in _FOR_PROMOTION or not one.holds)


def deadline(state: State, plan: RolloutPlan) -> datetime | None:
    """When the state ends at the latest; None while it is paused, and once it has ended."""
    match state:
        case Pending(clock=Clock() as clock):
            return _end(clock, STAGING_SECONDS)
        case WaitingForTraffic(clock=Clock() as clock):
            return _end(clock, plan.max_duration_seconds)
        case Analyzing(clock=clock) | Replaying(clock=clock):
            return _end(clock, plan.max_duration_seconds)
        case Promoting(since=datetime() as since):
            return since + timedelta(seconds=STAGING_SECONDS)
        case _:
            return None


def _end(clock: Clock, seconds: float) -> datetime | None:
    if clock.paused_at is not None:
        return None
    return clock.started_at + timedelta(seconds=seconds + clock.paused_seconds)


def _clause(
    name: ClauseName,
    holds: bool,
    required: float,
    found: float | None,
    subject: str | None = None,
) -> Clause:
    """Rounded here, so that a stored one is read as it was."""
    shown = None if found is None else round(float(found), _DIGITS)
    return Clause(name, holds, round(float(required), _DIGITS), shown, subject)


def _saves_overall(plan: RolloutPlan, replay: Replay, cost: StepCost | None) -> Clause:
    threshold = plan.promotion_threshold
    least = saved_at_least(replay, threshold=threshold, cost=cost)
    holds = saves_overall(replay, threshold=threshold, min_effect=plan.min_effect, cost=cost)
    return _clause("SavesOverall", holds, plan.min_effect_bps, _share_bps(replay, least))


def _no_class_harm(replay: Replay, threshold: float) -> Clause:
    """Of the class that is nearest to its threshold."""
    found = [
        (one.log_harm - class_threshold(number, threshold), number, one)
        for number, one in enumerate(replay.classes, start=1)
    ]
    above, number, worst = max(found, key=lambda each: each[0])
    required = class_threshold(number, threshold)
    return _clause("NoClassHarm", above < 0, required, worst.log_harm, worst.name)


def _share_bps(replay: Replay, steps: float | None) -> float | None:
    if steps is None or replay.stable_steps <= 0:
        return None
    return _bps(steps / replay.stable_steps)


def _bps(share: float | None) -> float | None:
    return None if share is None else min(max(share, -1.0), 1.0) * 10_000
