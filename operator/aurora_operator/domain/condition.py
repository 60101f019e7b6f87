"""The three conditions of a deployment, computed anew from what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aurora_operator.domain.deployment import Condition, Status
from aurora_operator.domain.observation import ComponentView
from aurora_operator.domain.rollout import Analyzing


@dataclass(frozen=True, slots=True)
class _Finding:
    status: bool
    reason: str
    message: str = ""


def conditions(
    status: Status,
    components: Sequence[ComponentView],
    refusals: Mapping[str, str],
    *,
    now: datetime,
) -> tuple[Condition, ...]:
    """Ready, Progressing, Degraded; a transition time moves only where the status flips."""
    return (
        _condition("Ready", _ready(components), status, now),
        _condition("Progressing", _progressing(status, components), status, now),
        _condition("Degraded", _degraded(status, components, refusals), status, now),
    )


def _condition(
    kind: Literal["Ready", "Progressing", "Degraded"],
    finding: _Finding,
    status: Status,
    now: datetime,
) -> Condition:
    before = next((known for known in status.conditions if known.type == kind), None)
    unchanged = before is not None and before.status == finding.status
    return Condition(
        type=kind,
        status=finding.status,
        reason=finding.reason,
        message=finding.message,
        last_transition_time=before.last_transition_time if before and unchanged else now,
        observed_generation=status.observed_generation,
    )


def _ready(components: Sequence[ComponentView]) -> _Finding:
    """Requests are served; a buffer or trainer that is down does not change that."""
    for component in components:
        if component.name == "inference":
            if component.ready:
                return _Finding(True, "Serving")
            return _Finding(False, "InferenceNotReady", component.message or "inference starts")
    return _Finding(False, "InferenceNotReady", "no inference runs")


def _progressing(status: Status, components: Sequence[ComponentView]) -> _Finding:
    if (rollout := status.live_rollout) is not None:
        step = ""
        if isinstance(rollout.state, Analyzing):
            share = rollout.plan.steps_percent[rollout.state.step]
            step = f" at {share}% of the traffic"
        state = type(rollout.state).__name__
        return _Finding(True, f"Rollout{state}", f"{rollout.id} is {state}{step}")
    starting = [view.name for view in components if not view.ready and not view.failing]
    if starting:
        return _Finding(True, "ComponentsStarting", f"waiting for {', '.join(starting)}")
    return _Finding(False, "Idle")


def _degraded(
    status: Status, components: Sequence[ComponentView], refusals: Mapping[str, str]
) -> _Finding:
    failing = [f"{view.name}: {view.message}" for view in components if view.failing]
    if failing:
        return _Finding(True, "ComponentFailing", "; ".join(failing))
    if status.stable is not None and (reason := refusals.get(status.stable.digest)):
        return _Finding(True, "StableDraftRefused", reason)
    return _Finding(False, "AsExpected")
