"""The drafts that stay in memory beside the stable one: the initial one and former stable ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.observation import InferenceView, Observation
from aurora_operator.domain.rollout.state import Promoted
from aurora_operator.domain.status.deployment import Draft, Retained, Status

# The status is not written for less.
_SHARE_STEP_PERCENT = 5


def retained(
    deployment: AuroraDeployment, before: Status, status: Status, observed: Observation
) -> Status:
    """The status with the drafts to retain, as many as the manifest says.

    `before`: the stored one. A promotion retains the former stable draft; the initial one is always
    retained unless it is stable. Of the others, the one that serves least goes first.
    """
    limit = deployment.spec.draft.retained
    if limit == 0:
        return replace(status, retained=())
    kept = [_with_share(each, observed.inferences) for each in status.retained]
    if _has_promoted(before, status) and before.stable is not None:
        share = max(0, 100 - sum(each.share_percent for each in kept))
        kept.insert(0, Retained(before.stable, share))
    initial = observed.initial
    if initial is not None and not any(_is_initial(each.draft, initial) for each in kept):
        kept += _initial(initial, status, observed)
    stable = status.stable
    kept = [each for each in kept if stable is None or each.draft.digest != stable.digest]
    while len(kept) > limit:
        kept.remove(_least_used(kept, initial))
    return replace(status, retained=tuple(kept))


def awaits_initial(status: Status, observed: Observation) -> Draft | None:
    """The initial draft, if it is to be retained but its files alone know its digest."""
    initial, stable = observed.initial, status.stable
    if initial is None or initial.digest or stable is None or _is_initial(stable, initial):
        return None
    is_known = any(_is_initial(each.draft, initial) for each in status.retained)
    return None if is_known else initial


def _initial(initial: Draft, status: Status, observed: Observation) -> list[Retained]:
    """The initial draft under its digest, if that is known and another draft is stable."""
    if status.stable is None or _is_initial(status.stable, initial):
        return []
    if initial.digest:
        return [Retained(initial)]
    found = [each for view in observed.inferences for each in view.retained]
    return [each for each in found if _is_initial(each.draft, initial)][:1]


def _is_initial(draft: Draft, initial: Draft) -> bool:
    """Whether it is the manifest's, which may name no digest."""
    return draft.digest == initial.digest if initial.digest else draft.uri == initial.uri


def _has_promoted(before: Status, status: Status) -> bool:
    rollout = status.rollout
    return (
        rollout is not None
        and isinstance(rollout.state, Promoted)
        and status.stable == rollout.candidate.draft
        and before.stable != status.stable
        and before.live_rollout is not None
    )


def _with_share(kept: Retained, views: Sequence[InferenceView]) -> Retained:
    """With the mean of what the inferences say that it serves, rounded."""
    digest = kept.draft.digest
    shares = [
        each.share_percent
        for view in views
        for each in view.retained
        if each.draft.digest == digest
    ]
    if not shares:
        return kept
    mean = sum(shares) / len(shares)
    if abs(mean - kept.share_percent) < _SHARE_STEP_PERCENT:
        return kept
    return replace(kept, share_percent=round(mean / _SHARE_STEP_PERCENT) * _SHARE_STEP_PERCENT)


def _least_used(kept: Sequence[Retained], initial: Draft | None) -> Retained:
    """The one to go: the oldest of those that serve least, never the initial one."""
    others = [each for each in kept if initial is None or not _is_initial(each.draft, initial)]
    return min(reversed(others), key=lambda each: each.share_percent)
