"""What is told of an ended rollout: all that its verdict rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.status.deployment import Draft, Rollout, Status, Verdict, Watch

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """An ended rollout, or a promotion that its watch took back.

    `stable` is the draft that it was compared with, `rollout` and `watch` what was measured; None
    where that is not known any more. `spec` is spec.rollout of that `generation`, as JSON.
    """

    namespace: str
    deployment: str
    generation: int
    spec: Mapping[str, Any]
    verdict: Verdict
    stable: Draft | None = None
    rollout: Rollout | None = None
    watch: Watch | None = None


def report_of(
    deployment: AuroraDeployment,
    generation: int,
    verdict: Verdict,
    *,
    before: Status | None,
    after: Status,
) -> Report:
    """The report of a verdict in the history of `after`.

    `before` is the status in which the rollout went on, None if that is not known any more.
    """
    rollout, watch = after.rollout, None if before is None else before.watch
    is_of_watch = watch is not None and verdict.id == watch.verdict_id
    return Report(
        namespace=deployment.metadata.namespace,
        deployment=deployment.metadata.name,
        generation=generation,
        spec=deployment.spec.rollout.model_dump(mode="json", by_alias=True, exclude_none=True),
        verdict=verdict,
        stable=_compared_with(verdict, before),
        rollout=rollout if rollout is not None and rollout.id == verdict.id else None,
        watch=watch if is_of_watch else None,
    )


def _compared_with(verdict: Verdict, before: Status | None) -> Draft | None:
    if before is None:
        return None
    watch = before.watch
    if watch is not None and verdict.id == watch.verdict_id:
        return watch.former
    return before.stable
