"""A deployment that is created anew goes on with the draft that an earlier one had promoted."""

from __future__ import annotations

from dataclasses import replace

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.observation import Observation
from aurora_operator.domain.status.deployment import Queue, Status


def restored(deployment: AuroraDeployment, status: Status, observed: Observation) -> Status:
    """The status with the recorded draft as the stable one.

    Only before a first rollout: then the deployment's own decisions count. What the earlier
    deployment knew is not tried again.
    """
    trainer = observed.trainer
    found = None if trainer is None else trainer.restorable
    if found is None or status.rollout is not None or status.history:
        return status
    if deployment.spec.model_store.restore_policy == "Never":
        return status
    if status.stable is not None and found.candidate.draft.digest == status.stable.digest:
        return status
    waiting, sequence = status.queue.waiting, max(status.queue.sequence, found.seen_sequence)
    if waiting is not None and waiting.sequence <= found.seen_sequence:
        waiting = None
    return replace(
        status,
        stable=found.candidate.draft,
        stable_acceptance_bps=None,
        queue=Queue(sequence, waiting, status.queue.superseded),
        attempts=found.attempts,
    )
