"""The states of a rollout and its transition function, `advance`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Literal

from aurora_common.codec import Wire
from aurora_operator.domain.rollout.evidence import Evidence
from aurora_operator.domain.rollout.guardrail import harm

MAX_STEPS = 20


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The terms of a rollout, fixed when it begins; a changed manifest applies to the next one.

    A threshold moved while the evidence is known would void the promise of `alpha`.
    """

    steps_percent: Annotated[
        tuple[int, ...], "Shares of the traffic, in order.", Wire(max_items=MAX_STEPS)
    ]
    alpha: Annotated[str, "Bound on the chance of promoting a draft that is no better."]
    min_effect_bps: Annotated[int, "By how much its acceptance rate must be higher; basis points."]
    min_requests: Annotated[int, "How many requests must be judged."]
    max_duration_seconds: Annotated[float, "How long it may take, pauses excluded."]

    @property
    def threshold(self) -> float:
        """log(1/α), which the log of an e-value must reach."""
        return -math.log(float(self.alpha))

    @property
    def requests_per_step(self) -> int:
        return math.ceil(self.min_requests / len(self.steps_percent))

    def is_last(self, step: int) -> bool:
        return step >= len(self.steps_percent) - 1


@dataclass(frozen=True, slots=True)
class Clock:
    """Time spent analysing, pauses excluded."""

    started_at: Annotated[datetime, "When the first request was judged."]
    paused_at: Annotated[datetime | None, "When it was paused, if it is."] = None
    paused_seconds: Annotated[float, "The length of earlier pauses."] = 0.0

    def elapsed(self, now: datetime) -> timedelta:
        until = now if self.paused_at is None else self.paused_at
        return until - self.started_at - timedelta(seconds=self.paused_seconds)

    def pause(self, now: datetime) -> Clock:
        return replace(self, paused_at=now)

    def resume(self, now: datetime) -> Clock:
        assert self.paused_at is not None
        pause = (now - self.paused_at).total_seconds()
        return replace(self, paused_at=None, paused_seconds=self.paused_seconds + pause)


@dataclass(frozen=True, slots=True)
class Pending:
    """The candidate is not yet staged with its first share on every inference."""


@dataclass(frozen=True, slots=True)
class WaitingForTraffic:
    """The candidate has its share everywhere; no request was judged yet."""


@dataclass(frozen=True, slots=True)
class Analyzing:
    """The candidate serves `plan.steps_percent[step]` of new requests."""

    step: Annotated[int, "The step in progress, from 0."]
    entered_at: Annotated[datetime, "When the step began.", Wire("stepEnteredAt")]
    entered_requests: Annotated[
        int, "How many requests were judged when the step began.", Wire("stepEnteredRequests")
    ]
    clock: Annotated[Clock, "Time spent analysing."]


Reason = Annotated[str, "Why it ends or ended."]


@dataclass(frozen=True, slots=True)
class Promoting:
    """Decided but not yet stable on every inference; there is no way back."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Promoted:
    reason: Reason


@dataclass(frozen=True, slots=True)
class RolledBack:
    reason: Reason


@dataclass(frozen=True, slots=True)
class Inconclusive:
    reason: Reason


Ended = Promoted | RolledBack | Inconclusive
State = Pending | WaitingForTraffic | Analyzing | Promoting | Ended


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of the rollout now."""

    # The candidate is staged and has its share on every inference.
    staged: bool = False
    # The candidate is the stable draft of every inference.
    promoted: bool = False
    # Why an inference refuses the candidate for good; only while it is stable nowhere.
    refusal: str | None = None
    paused: bool = False
    command: Literal["abort", "promote"] | None = None


def advance(
    state: State, *, plan: RolloutPlan, evidence: Evidence, observed: Observed, now: datetime
) -> State:
    """The next state; the same state if there is nothing to decide.

    A candidate is promoted once log E ≥ log(1/α) and at least `min_requests` were judged, whatever
    the step, unless a guardrail holds it back; it is rolled back once the mirrored process or a
    guardrail shows harm. Missing evidence never promotes: at the deadline the stable draft stays.
    A pause holds all but harm and commands.
    """
    match state:
        case Promoted() | RolledBack() | Inconclusive():
            return state
        case _ if observed.refusal is not None:
            return RolledBack(f"CheckpointRefused: {observed.refusal}")
        case Promoting(reason=reason) if observed.promoted:
            return Promoted(reason)
        case Promoting():
            return state
        case _ if observed.command == "abort":
            return RolledBack("Aborted")
        case _ if observed.command == "promote":
            return Promoting("Commanded")
        case Analyzing() if evidence.log_harm >= plan.threshold:
            return RolledBack("AcceptanceHarm")
        case Analyzing() if (harmful := harm(evidence.guardrails, plan.threshold)) is not None:
            return RolledBack(harmful)
        case Analyzing(clock=clock) if observed.paused and clock.paused_at is None:
            return replace(state, clock=clock.pause(now))
        case _ if observed.paused:
            return state
        case Analyzing(clock=clock) if clock.paused_at is not None:
            return replace(state, clock=clock.resume(now))
        case Pending() if observed.staged:
            return WaitingForTraffic()
        case WaitingForTraffic() if evidence.requests > 0:
            return Analyzing(step=0, entered_at=now, entered_requests=0, clock=Clock(now))
        case Analyzing() if is_better(evidence, plan):
            return Promoting("AcceptanceBetter")
        case Analyzing(clock=clock) if clock.elapsed(now).total_seconds() >= (
            plan.max_duration_seconds
        ):
            return Inconclusive("DeadlineReached")
        case Analyzing(step=step) if not plan.is_last(step) and (
            evidence.requests - state.entered_requests >= plan.requests_per_step
        ):
            return replace(state, step=step + 1, entered_at=now, entered_requests=evidence.requests)
        case _:
            return state


def is_better(evidence: Evidence, plan: RolloutPlan) -> bool:
    """The promotion rule."""
    is_shown = evidence.log_e >= plan.threshold and evidence.requests >= plan.min_requests
    return is_shown and not evidence.held_back_by


def weight_percent(state: State, plan: RolloutPlan) -> int | None:
    """The candidate's share of new requests; None if this state leaves it unchanged."""
    match state:
        case Pending() | WaitingForTraffic():
            return plan.steps_percent[0]
        case Analyzing(step=step):
            return plan.steps_percent[step]
        case Promoting():
            return None
        case Promoted() | RolledBack() | Inconclusive():
            return 0
