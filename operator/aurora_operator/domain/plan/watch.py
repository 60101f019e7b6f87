"""The watch over a promotion: is the draft that served before it the faster one after all?

Traffic may change, and what proved to be faster yesterday may be slower today. So the same replay
runs on for a while, on requests that were recorded since, and harm goes back to the former draft in
one step. It says nothing of requests that the former draft served, which `replay` skips.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from aurora_operator.domain.plan.observation import Observation
from aurora_operator.domain.plan.verdict import verdict_of
from aurora_operator.domain.rollout.replay import Replay, read, replayed_harm
from aurora_operator.domain.rollout.state import Inconclusive, RolledBack
from aurora_operator.domain.rollout.step_cost import estimated
from aurora_operator.domain.status.deployment import Draft, Rollout, Status, Verdict, Watch


def begun(rollout: Rollout, former: Draft | None, *, seconds: float, now: datetime) -> Watch | None:
    """The watch over a rollout that has promoted; None if nothing was replayed, or by choice."""
    replay = rollout.evidence.replay
    if former is None or replay is None or seconds <= 0:
        return None
    return Watch(
        rollout_id=rollout.id,
        former=former,
        alpha=rollout.plan.alpha,
        ends_at=now + timedelta(seconds=seconds),
        replay=Replay(replay.after, begin=replay.after),
        started_at=now,
        step_cost=estimated(rollout.evidence.step_cost),
    )


def watched(
    status: Status, observed: Observation, now: datetime, *, suspended: bool = False
) -> Status:
    """The status with what was recorded since counted; the former draft is stable upon harm.

    The time in which the deployment is suspended does not count.
    """
    watch, stable = status.watch, status.stable
    if watch is None or stable is None:
        return status
    if suspended:
        return replace(status, watch=replace(watch, suspended_at=watch.suspended_at or now))
    if watch.suspended_at is not None:
        ends_at = watch.ends_at + (now - watch.suspended_at)
        watch = replace(watch, ends_at=ends_at, suspended_at=None)
    watch = replace(watch, replay=_counted(watch, observed))
    harm = replayed_harm(watch.replay, threshold=watch.threshold)
    if harm is not None:
        return _reverted(status, watch, stable, RolledBack(f"WatchHarm: {harm}"), now)
    return replace(status, watch=None if now >= watch.ends_at else watch)


def _counted(watch: Watch, observed: Observation) -> Replay:
    batch, replay = observed.watch, watch.replay
    if batch is None or batch.rollout_id != watch.rollout_id:
        return replay
    # The judge was asked about the former draft as the candidate.
    return read(
        replay, (score.exchanged(watch.step_cost) for score in batch.scores), through=batch.after
    )


def _reverted(
    status: Status, watch: Watch, stable: Draft, ended: RolledBack, now: datetime
) -> Status:
    """The former draft is stable; a rollout in progress had another baseline, and ends."""
    verdict = Verdict(
        id=watch.verdict_id,
        checkpoint=stable.checkpoint,
        digest=stable.digest,
        outcome=type(ended).__name__,
        reason=ended.reason,
        effect_bps=0,
        requests=0,
        at=now,
        saved_bps=watch.replay.saved_bps,
        replayed=watch.replay.requests,
        started_at=watch.started_at,
        saved_ci_bps=watch.replay.ci_bps,
    )
    status = replace(
        status.with_verdict(verdict), stable=watch.former, stable_acceptance_bps=None, watch=None
    )
    rollout = status.live_rollout
    if rollout is None:
        return status
    lost = Inconclusive("StableReverted")
    status = status.with_verdict(verdict_of(rollout, lost, now))
    return replace(status, rollout=replace(rollout, state=lost))
