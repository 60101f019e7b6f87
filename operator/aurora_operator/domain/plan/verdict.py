"""How a rollout ended, as its deployment's history keeps it."""

from __future__ import annotations

from datetime import datetime

from aurora_operator.domain.rollout.state import Ended
from aurora_operator.domain.status.deployment import Rollout, Verdict


def verdict_of(rollout: Rollout, state: Ended, now: datetime) -> Verdict:
    evidence, draft = rollout.evidence, rollout.candidate.draft
    return Verdict(
        id=rollout.id,
        checkpoint=draft.checkpoint,
        digest=draft.digest,
        outcome=type(state).__name__,
        reason=state.reason,
        effect_bps=evidence.effect_bps,
        requests=evidence.requests,
        at=now,
        saved_bps=None if evidence.replay is None else evidence.replay.saved_bps,
        replayed=None if evidence.replay is None else evidence.replay.requests,
    )
