"""The four idempotent effects of a rollout, and which of them are due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aurora_operator.domain.plan.observation import InferenceView, Observation
from aurora_operator.domain.rollout.state import Promoting, weight_percent
from aurora_operator.domain.status.deployment import Draft, Rollout, Status


@dataclass(frozen=True, slots=True)
class StageDraft:
    inference: str
    slot: Literal["stable", "candidate"]
    draft: Draft


@dataclass(frozen=True, slots=True)
class UnstageDraft:
    inference: str


@dataclass(frozen=True, slots=True)
class SetTraffic:
    inference: str
    rollout_id: str
    candidate_bps: int


@dataclass(frozen=True, slots=True)
class PromoteDraft:
    inference: str
    digest: str


Action = StageDraft | UnstageDraft | SetTraffic | PromoteDraft


def due_actions(status: Status, observed: Observation) -> Iterator[Action]:
    """The actions that bring the inferences in line with the status."""
    for view in observed.inferences:
        for action in _due(status, view, observed.initial):
            # A draft that was refused for good is not staged again.
            if not (isinstance(action, StageDraft) and action.draft.digest in observed.refusals):
                yield action


def _due(status: Status, view: InferenceView, initial: Draft | None) -> Iterator[Action]:
    """The actions for one inference, in a safe order.

    A candidate's share is removed before the candidate and set after it is staged.
    """
    rollout = status.live_rollout
    rollout_id = rollout.id if rollout is not None else ""
    candidate = rollout.candidate.draft if rollout is not None else None
    promoting = rollout is not None and isinstance(rollout.state, Promoting)
    promoted = promoting and candidate is not None and _is(view.stable, candidate.digest)
    if view.rollout_id not in ("", rollout_id) or (rollout is None and view.candidate_bps > 0):
        yield SetTraffic(view.name, "", 0)
    if status.stable is not None and not promoted and not _is(view.stable, status.stable.digest):
        yield StageDraft(view.name, "stable", status.stable)
    # A rollout without a stable draft compares with plain decoding: no draft may appear meanwhile.
    if status.stable is None and rollout is None and view.stable is None and initial is not None:
        yield StageDraft(view.name, "stable", initial)
    if candidate is None:
        if view.candidate is not None:
            yield UnstageDraft(view.name)
        return
    if promoted or rollout is None:
        return
    if not _is(view.candidate, candidate.digest):
        yield StageDraft(view.name, "candidate", candidate)
    if promoting:
        yield PromoteDraft(view.name, candidate.digest)
    elif (view.rollout_id, view.candidate_bps) != (rollout_id, share_bps(rollout)):
        yield SetTraffic(view.name, rollout_id, share_bps(rollout))


def share_bps(rollout: Rollout) -> int:
    """The candidate's share of new requests in the rollout's current state."""
    return (weight_percent(rollout.state, rollout.plan) or 0) * 100


def _is(draft: Draft | None, digest: str) -> bool:
    return draft is not None and draft.digest == digest
