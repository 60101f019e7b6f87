"""How a rollout ended, as its deployment's history keeps it."""

from __future__ import annotations

from datetime import datetime

from aurora_operator.domain.rollout.clause import telling
from aurora_operator.domain.rollout.state import Ended
from aurora_operator.domain.status.deployment import Rollout, Verdict


def verdict_of(rollout: Rollout, state: Ended, now: datetime) -> Verdict:
    evidence, draft = rollout.evidence, rollout.candidate.draft
    replay = evidence.replay
    return Verdict(
        id=rollout.id,
        checkpoint=draft.checkpoint,
        digest=draft.digest,
        outcome=type(state).__name__,
        reason=state.reason,
        effect_bps=evidence.effect_bps,
        requests=evidence.requests,
        at=now,
        saved_bps=None if replay is None else replay.saved_bps,
        replayed=None if replay is None else replay.requests,
        started_at=rollout.started_at,
        saved_ci_bps=None if replay is None else replay.ci_bps,
        effect_ci_bps=evidence.ci_bps,
        clauses=telling(rollout.clauses),
    )
