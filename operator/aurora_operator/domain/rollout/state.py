"""The states of a rollout and its transition function, `advance`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Literal

from aurora_common.codec import Wire
from aurora_operator.domain.rollout.betting import log_share, log_threshold
from aurora_operator.domain.rollout.evidence import Evidence, effect_interval
from aurora_operator.domain.rollout.guardrail import harm
from aurora_operator.domain.rollout.replay import replayed_harm
from aurora_operator.domain.rollout.time_saved import is_faster, is_futile, is_harmful_cost

MAX_STEPS = 20
# How long a rollout waits for inferences to load its candidate, and to make it their stable draft.
STAGING_SECONDS = 600.0
# Restarts of inferences that have the candidate, all together, after which it is rolled back.
MAX_CRASHES = 3
# How many requests a candidate is replayed on before a better one may take its turn.
FAIR_REQUESTS = 100
_NAMED = 3


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The terms of a rollout, fixed when it begins; a changed manifest applies to the next one.

    A threshold moved while the evidence is known would void the promise of `alpha`.
    """

    steps_percent: Annotated[
        tuple[int, ...], "Shares of the traffic, in order.", Wire(max_items=MAX_STEPS)
    ]
    alpha: Annotated[str, "Bound on the chance of promoting a draft that is no better."]
    min_effect_bps: Annotated[
        int, "By how much it must be better, in time or in acceptance; basis points."
    ]
    min_requests: Annotated[int, "How many requests must be judged."]
    max_duration_seconds: Annotated[
        float, "How long it may wait for a first request, and then take; pauses excluded."
    ]

    method: Annotated[
        Literal["Replay", "Canary"], "What promotes: replayed requests, or the live traffic alone."
    ] = "Canary"
    attempt: Annotated[
        int,
        "Which candidate since the last promotion it is, as that sets its share of alpha; 0: all.",
    ] = 0
    dry_run: Annotated[bool, "Replay says what its verdict would be; nothing is served."] = False

    @property
    def min_effect(self) -> float:
        return self.min_effect_bps / 10_000

    @property
    def threshold(self) -> float:
        """log(1/α), which the log of an e-value for harm must reach."""
        return log_threshold(self.alpha)

    @property
    def promotion_threshold(self) -> float:
        """log(1/α_j), which that for better must reach.

        Candidate j since the last promotion has α_j = α / (j (j + 1)), together at most α: however
        many are tried, one that is no better is promoted with probability at most α.
        """
        return self.threshold + (log_share(self.attempt) if self.attempt else 0.0)

    @property
    def requests_per_step(self) -> int:
        return math.ceil(self.min_requests / len(self.steps_percent))

    def is_over(self, clock: Clock, now: datetime) -> bool:
        """Whether a state has lasted as long as it may."""
        return clock.elapsed(now).total_seconds() >= self.max_duration_seconds

    def is_last(self, step: int) -> bool:
        return step >= len(self.steps_percent) - 1


@dataclass(frozen=True, slots=True)
class Clock:
    """Time spent in a state, pauses excluded."""

    started_at: Annotated[datetime, "When the state began."]
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


# None in a state that an earlier operator began: its time starts anew.
Waiting = Annotated[Clock | None, "Time spent in this state."]


@dataclass(frozen=True, slots=True)
class Pending:
    """The candidate is not yet staged with its first share on every inference."""

    clock: Waiting = None


@dataclass(frozen=True, slots=True)
class WaitingForTraffic:
    """The candidate has its share; no request was judged yet."""

    clock: Waiting = None


@dataclass(frozen=True, slots=True)
class Analyzing:
    """The candidate serves `plan.steps_percent[step]` of new requests."""

    step: Annotated[int, "The step in progress, from 0."]
    entered_at: Annotated[datetime, "When the step began.", Wire("stepEnteredAt")]
    entered_requests: Annotated[
        int, "How many requests were judged when the step began.", Wire("stepEnteredRequests")
    ]
    clock: Annotated[Clock, "Time spent in this state."]


@dataclass(frozen=True, slots=True)
class Replaying:
    """A dry run: recorded requests are replayed, and no inference has the candidate."""

    clock: Annotated[Clock, "Time spent in this state."]


Reason = Annotated[str, "Why it ends or ended."]


@dataclass(frozen=True, slots=True)
class Promoting:
    """Decided but not yet stable on every inference; there is no way back."""

    reason: Reason
    since: Annotated[datetime | None, "When it was decided."] = None


@dataclass(frozen=True, slots=True)
class Promoted:
    reason: Reason


@dataclass(frozen=True, slots=True)
class RolledBack:
    reason: Reason


@dataclass(frozen=True, slots=True)
class Inconclusive:
    reason: Reason


@dataclass(frozen=True, slots=True)
class WouldPromote:
    """Of a dry run: replay has proved what a promotion needs of it."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class WouldRollBack:
    """Of a dry run: replay has proved harm."""

    reason: Reason


Ended = Promoted | RolledBack | Inconclusive | WouldPromote | WouldRollBack
State = Pending | WaitingForTraffic | Analyzing | Promoting | Replaying | Ended


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of the rollout now."""

    # Every inference has the stable draft, the candidate and its share; at least one has.
    staged: bool = False
    staged_somewhere: bool = False
    # The candidate is the stable draft of every inference; the names of those where it is not.
    promoted: bool = False
    unpromoted: tuple[str, ...] = ()
    # Why an inference refuses the candidate, though it tried again; only while none serves it.
    refusal: str | None = None
    # Why the two drafts cannot be replayed.
    not_comparable: str | None = None
    paused: bool = False
    # Nothing serves, by choice.
    suspended: bool = False
    # A newer candidate waits that held-out trajectories prefer by far.
    outdone: bool = False
    command: Literal["abort", "promote"] | None = None


def advance(
    state: State, *, plan: RolloutPlan, evidence: Evidence, observed: Observed, now: datetime
) -> State:
    """The next state; the same state if there is nothing to decide.

    `is_better` promotes, whatever the step. A candidate is rolled back once a process against harm
    reaches log(1/α), of live requests, of replayed ones, of a class of them or of a guardrail, once
    its steps cost more than it saves of them, or once inferences die of it. A step ends once it has
    its requests and nothing speaks for harm. Missing evidence never promotes: at the deadline the
    stable draft stays, and one that lags gives way to a better one. Every state has a deadline. A
    pause holds all but harm and commands, a suspension all but commands.
    """
    replay = evidence.replay
    match state:
        case Promoted() | RolledBack() | Inconclusive() | WouldPromote() | WouldRollBack():
            return state
        case _ if observed.suspended and observed.command is None:
            return _suspended(state, now)
        case _ if observed.refusal is not None:
            return RolledBack(f"CheckpointRefused: {observed.refusal}")
        case Promoting(reason=reason) if observed.promoted:
            return Promoted(reason)
        case Promoting(since=None):
            return replace(state, since=now)
        case Promoting(reason=reason, since=datetime() as since) if _is_over(now - since):
            # The others are given it as the stable draft that they lack.
            return Promoted(f"{reason}; not yet on {_named(observed.unpromoted)}")
        case Promoting():
            return state
        case _ if observed.command == "abort":
            return RolledBack("Aborted")
        case _ if observed.command == "promote":
            return Promoting("Commanded", now)
        case _ if evidence.crashes >= MAX_CRASHES:
            return RolledBack("CrashHarm")
        case Analyzing() if evidence.log_harm >= plan.threshold:
            return RolledBack("AcceptanceHarm")
        case Analyzing() if (harmful := harm(evidence.guardrails, plan.threshold)) is not None:
            return RolledBack(harmful)
        case _ if (
            replay is not None
            and (where := replayed_harm(replay, threshold=plan.threshold)) is not None
        ):
            return RolledBack(f"ReplayHarm: {where}")
        case _ if replay is not None and is_harmful_cost(replay, evidence.step_cost):
            return RolledBack("StepCostHarm")
        case Pending(clock=None) | WaitingForTraffic(clock=None):
            return replace(state, clock=Clock(now))
        case (
            Pending(clock=Clock() as clock)
            | WaitingForTraffic(clock=Clock() as clock)
            | Analyzing(clock=clock)
        ) if observed.paused != (clock.paused_at is not None):
            return replace(state, clock=clock.pause(now) if observed.paused else clock.resume(now))
        case _ if observed.paused:
            return state
        case _ if observed.not_comparable is not None:
            return Inconclusive(f"NotComparable: {observed.not_comparable}")
        case _ if replay is not None and is_futile(replay, min_effect=plan.min_effect):
            return Inconclusive("GainTooSmall")
        case Pending() if observed.staged:
            return WaitingForTraffic(Clock(now))
        case Pending(clock=Clock() as clock) if _is_over(clock.elapsed(now)):
            if observed.staged_somewhere:
                return WaitingForTraffic(Clock(now))
            return Inconclusive("NotStaged")
        case WaitingForTraffic() if evidence.requests > 0:
            return Analyzing(step=0, entered_at=now, entered_requests=0, clock=Clock(now))
        case Analyzing() if replay is None and is_better(evidence, plan):
            return Promoting("AcceptanceBetter", now)
        case Analyzing() if is_better(evidence, plan):
            return Promoting("ReplayBetter", now)
        case Analyzing() if observed.outdone and _lags(evidence, plan):
            return Inconclusive("Superseded")
        case WaitingForTraffic(clock=Clock() as clock) if plan.is_over(clock, now):
            return Inconclusive("NothingJudged")
        case Analyzing(clock=clock) if plan.is_over(clock, now):
            return Inconclusive("DeadlineReached")
        case Analyzing(step=step) if not plan.is_last(step) and (
            evidence.requests - state.entered_requests >= plan.requests_per_step
            and evidence.log_harm < 0
            and (replay is None or replay.log_harm < 0)
        ):
            return replace(state, step=step + 1, entered_at=now, entered_requests=evidence.requests)
        case _:
            return state


def _suspended(state: State, now: datetime) -> State:
    """The state with its clock stopped."""
    match state:
        case Promoting(since=datetime()):
            # It takes new pods as long as it took the old ones.
            return replace(state, since=None)
        case Pending(clock=Clock(paused_at=None) as clock):
            return replace(state, clock=clock.pause(now))
        case WaitingForTraffic(clock=Clock(paused_at=None) as clock):
            return replace(state, clock=clock.pause(now))
        case Analyzing(clock=Clock(paused_at=None) as clock):
            return replace(state, clock=clock.pause(now))
        case _:
            return state


def is_better(evidence: Evidence, plan: RolloutPlan) -> bool:
    """The promotion rule.

    With Replay, recorded requests prove that the candidate is faster, and the live ones that are
    required confirm that nothing speaks against it. Else the live ones must prove it.
    """
    if evidence.requests < plan.min_requests or evidence.held_back_by:
        return False
    if plan.method == "Canary":
        return evidence.log_e >= plan.promotion_threshold
    if evidence.replay is None or evidence.candidate.requests == 0:
        return False
    return not _contradicts(evidence) and is_faster(
        evidence.replay,
        threshold=plan.promotion_threshold,
        min_effect=plan.min_effect,
        cost=evidence.step_cost,
    )


def _contradicts(evidence: Evidence) -> bool:
    """Whether live acceptance is lower with the candidate, as far as so few requests can say."""
    interval = effect_interval(evidence)
    return interval is None or interval[1] <= 0


def _lags(evidence: Evidence, plan: RolloutPlan) -> bool:
    """Whether replay had a fair try and has less than half of the evidence that promotes."""
    replay = evidence.replay
    if replay is None or replay.requests < FAIR_REQUESTS:
        return False
    return replay.log_e < plan.promotion_threshold / 2


def weight_percent(state: State, plan: RolloutPlan) -> int | None:
    """The candidate's share of new requests; None if this state leaves it unchanged."""
    match state:
        case Pending() | WaitingForTraffic():
            return plan.steps_percent[0]
        case Analyzing(step=step):
            return plan.steps_percent[step]
        case Promoting():
            return None
        case _:
            return 0


def _is_over(waited: timedelta) -> bool:
    return waited.total_seconds() >= STAGING_SECONDS


def _named(names: tuple[str, ...]) -> str:
    """The first few names and how many more there are."""
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED])
    return f"{listed} and {more} more" if more > 0 else listed or "any inference"
