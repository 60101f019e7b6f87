"""The idempotent effects of a rollout, and which of them are due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aurora_operator.domain.plan.observation import InferenceView, Observation
from aurora_operator.domain.plan.portfolio import awaits_initial
from aurora_operator.domain.rollout.state import Promoting, weight_percent
from aurora_operator.domain.status.deployment import Draft, Rollout, Status


@dataclass(frozen=True, slots=True)
class StageDraft:
    inference: str
    slot: Literal["stable", "candidate", "retained"]
    draft: Draft


@dataclass(frozen=True, slots=True)
class UnstageDraft:
    inference: str


@dataclass(frozen=True, slots=True)
class ReleaseDraft:
    """Of those that are retained."""

    inference: str
    digest: str


@dataclass(frozen=True, slots=True)
class SetTraffic:
    """`crossed`: where drafts alternate, it begins each pair of blocks with the arm with which the
    other half of the inferences end it."""

    inference: str
    rollout_id: str
    candidate_bps: int
    crossed: bool = False


@dataclass(frozen=True, slots=True)
class PromoteDraft:
    inference: str
    digest: str


Action = StageDraft | UnstageDraft | ReleaseDraft | SetTraffic | PromoteDraft


def due_actions(
    status: Status, observed: Observation, *, retains: bool = False
) -> Iterator[Action]:
    """The actions that bring the inferences in line with the status.

    `retains`: former stable drafts stay in memory.
    """
    for number, view in enumerate(sorted(observed.inferences, key=lambda view: view.name)):
        if retains:
            yield from _before_promotion(status, view)
        yield from _due(status, view, observed, crossed=number % 2 == 1)
        yield from _beside(status, view, observed, retains=retains)


def _before_promotion(status: Status, view: InferenceView) -> Iterator[Action]:
    """Retains the stable draft while it is in memory, with what is known of it."""
    if _promotes(status) and view.stable is not None and is_draft(view.stable, status.stable):
        held = {each.draft.digest for each in view.retained}
        if view.stable.digest not in held:
            yield StageDraft(view.name, "retained", view.stable)


def _beside(
    status: Status, view: InferenceView, observed: Observation, *, retains: bool
) -> Iterator[Action]:
    """Brings what is retained in line; last, since a rollout need not wait for it."""
    held = {each.draft.digest for each in view.retained}
    wanted = {each.draft.digest: each.draft for each in status.retained}
    # It may be the next that is retained.
    spared = status.stable.digest if _promotes(status) and status.stable is not None else ""
    for digest in sorted(held - wanted.keys() - {spared}):
        yield ReleaseDraft(view.name, digest)
    missing = [draft for digest, draft in wanted.items() if digest not in held]
    if retains and (initial := awaits_initial(status, observed)) is not None:
        missing.append(initial)
    for draft in missing:
        if observed.may_stage(view.name, draft.digest):
            yield StageDraft(view.name, "retained", draft)


def _promotes(status: Status) -> bool:
    rollout = status.served_rollout
    return rollout is not None and isinstance(rollout.state, Promoting)


def _due(
    status: Status, view: InferenceView, observed: Observation, *, crossed: bool
) -> Iterator[Action]:
    """The actions for one inference, in a safe order.

    A candidate's share is removed before the candidate and set after it is staged. It gets none
    where the stable draft is another: its requests would compare the candidate with that one.
    """
    rollout, initial = status.served_rollout, observed.initial
    rollout_id = rollout.id if rollout is not None else ""
    candidate = rollout.candidate.draft if rollout is not None else None
    promoting = rollout is not None and isinstance(rollout.state, Promoting)
    promoted = promoting and candidate is not None and is_draft(view.stable, candidate)
    has_stable = is_draft(view.stable, status.stable)
    if view.rollout_id not in ("", rollout_id) or (rollout is None and view.candidate_bps > 0):
        yield SetTraffic(view.name, "", 0)
    elif view.candidate_bps > 0 and not (has_stable or promoting):
        yield SetTraffic(view.name, rollout_id, 0)
    if status.stable is not None and not promoted and not has_stable:
        yield from _stable(view, status.stable, observed)
    # A rollout without a stable draft compares with none: no draft may appear meanwhile.
    if status.stable is None and rollout is None and view.stable is None and initial is not None:
        yield from _stable(view, initial, observed)
    if candidate is None:
        if view.candidate is not None:
            yield UnstageDraft(view.name)
        return
    if promoted or rollout is None:
        return
    if not is_draft(view.candidate, candidate):
        if not observed.may_stage(view.name, candidate.digest):
            return
        yield StageDraft(view.name, "candidate", candidate)
    if promoting:
        yield PromoteDraft(view.name, candidate.digest)
    elif has_stable and (view.rollout_id, view.candidate_bps) != (rollout_id, share_bps(rollout)):
        yield SetTraffic(view.name, rollout_id, share_bps(rollout), crossed)


def _stable(view: InferenceView, draft: Draft, observed: Observation) -> Iterator[Action]:
    if observed.may_stage(view.name, draft.digest):
        yield StageDraft(view.name, "stable", draft)


def share_bps(rollout: Rollout) -> int:
    """The candidate's share of new requests in the rollout's current state."""
    return (weight_percent(rollout.state, rollout.plan) or 0) * 100


def is_draft(found: Draft | None, wanted: Draft | None) -> bool:
    """Whether a slot holds what it should, which may be no draft."""
    return (found and found.digest) == (wanted and wanted.digest)
