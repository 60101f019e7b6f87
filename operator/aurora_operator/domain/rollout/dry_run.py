"""A dry run: what the verdict on a candidate would be, by replay alone.

Nothing is staged and nothing served, so live traffic has no say: a candidate that would be promoted
here might still be held back, or rolled back, by what live requests show.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from aurora_operator.domain.rollout.replay import Replay, replayed_harm
from aurora_operator.domain.rollout.state import (
    Inconclusive,
    Observed,
    Replaying,
    RolloutPlan,
    State,
    WouldPromote,
    WouldRollBack,
)
from aurora_operator.domain.rollout.time_saved import is_faster, is_futile


def advance_dry(
    state: Replaying, *, plan: RolloutPlan, replay: Replay, observed: Observed, now: datetime
) -> State:
    """The next state, as `advance` has it for what replay decides.

    There is nothing to abort but the replay itself. A pause holds all but harm and commands.
    """
    clock = state.clock
    if observed.command == "abort":
        return Inconclusive("Aborted")
    if (where := replayed_harm(replay, threshold=plan.threshold)) is not None:
        return WouldRollBack(f"ReplayHarm: {where}")
    if observed.paused != (clock.paused_at is not None):
        return replace(state, clock=clock.pause(now) if observed.paused else clock.resume(now))
    if observed.paused:
        return state
    if observed.not_comparable is not None:
        return Inconclusive(f"NotComparable: {observed.not_comparable}")
    if is_futile(replay, min_effect=plan.min_effect):
        return Inconclusive("GainTooSmall")
    if is_faster(replay, threshold=plan.promotion_threshold, min_effect=plan.min_effect):
        return WouldPromote("ReplayBetter")
    if plan.is_over(clock, now):
        return Inconclusive("DeadlineReached" if replay.requests else "NothingJudged")
    return state
