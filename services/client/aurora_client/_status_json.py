"""Reads an AuroraDeployment's status from JSON; keys that a newer operator adds are ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from aurora_client._deployment import Condition, Evidence, PastRollout, Rollout, ServedDraft
from aurora_client._errors import BadResponseError

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Status:
    """The parts of a status that this package knows."""

    stable: ServedDraft | None
    rollout: Rollout | None
    queued: ServedDraft | None
    is_paused: bool
    history: tuple[PastRollout, ...]
    conditions: tuple[Condition, ...]


def parse_status(text: str) -> Status:
    """Raises BadResponseError naming the field that has another type than the status has."""
    try:
        content: object = json.loads(text) if text else {}
    except ValueError as error:
        raise BadResponseError("the deployment's status is not JSON") from error
    status = _mapping({"status": content}, "status") or {}
    stable = _mapping(status, "stable")
    rollout = _mapping(status, "rollout")
    queued = _mapping(_mapping(status, "queue") or {}, "waiting")
    return Status(
        stable=_served_draft(stable) if stable else None,
        rollout=_rollout(rollout) if rollout else None,
        queued=_served_draft(queued) if queued else None,
        is_paused=status.get("paused") is True,
        history=tuple(_past_rollout(entry) for entry in _mappings(status, "history")),
        conditions=tuple(_condition(entry) for entry in _mappings(status, "conditions")),
    )


def _served_draft(draft: Json) -> ServedDraft:
    return ServedDraft(
        checkpoint=_text(draft, "checkpoint"),
        digest=_text(draft, "digest"),
        acceptance_bps=_whole(draft, "acceptanceBps"),
    )


def _rollout(rollout: Json) -> Rollout:
    candidate = _mapping(rollout, "candidate")
    evidence = _mapping(rollout, "evidence")
    plan = _mapping(rollout, "plan") or {}
    return Rollout(
        id=_text(rollout, "id"),
        state=_text(rollout, "state"),
        reason=_text(rollout, "reason"),
        candidate=_served_draft(candidate) if candidate else None,
        step=_whole(rollout, "step"),
        steps_percent=_wholes(plan, "stepsPercent"),
        evidence=_evidence(evidence) if evidence else None,
    )


def _evidence(evidence: Json) -> Evidence:
    return Evidence(
        requests=_whole(evidence, "requests") or 0,
        log_e=_decimal(evidence, "logE"),
        log_harm=_decimal(evidence, "logHarm"),
        threshold=_decimal(evidence, "threshold"),
        effect_bps=_whole(evidence, "effectBps"),
        interval_bps=_interval(evidence, "ciBps"),
    )


def _past_rollout(entry: Json) -> PastRollout:
    return PastRollout(
        id=_text(entry, "id"),
        outcome=_text(entry, "outcome"),
        checkpoint=_text(entry, "checkpoint"),
        reason=_text(entry, "reason"),
        requests=_whole(entry, "requests") or 0,
        effect_bps=_whole(entry, "effectBps"),
        at=_text(entry, "at"),
    )


def _condition(entry: Json) -> Condition:
    return Condition(
        type=_text(entry, "type"),
        status=_text(entry, "status"),
        reason=_text(entry, "reason"),
        message=_text(entry, "message"),
    )


def _wrong(key: str, expected: str, value: object) -> BadResponseError:
    kind = type(value).__name__
    return BadResponseError(f"the deployment's status has {key} as {kind}; expected {expected}")


def _mapping(parent: Json, key: str) -> Json | None:
    value = parent.get(key)
    if value is None or isinstance(value, Mapping):
        return value
    raise _wrong(key, "an object", value)


def _mappings(parent: Json, key: str) -> list[Json]:
    value = parent.get(key, [])
    if not isinstance(value, list):
        raise _wrong(key, "a list", value)
    return [_mapping({key: item}, key) or {} for item in value]


def _text(parent: Json, key: str) -> str:
    value = parent.get(key)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise _wrong(key, "text", value)


def _whole(parent: Json, key: str) -> int | None:
    value = parent.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _wrong(key, "a whole number", value)


def _decimal(parent: Json, key: str) -> float | None:
    """A decimal, which Kubernetes' conventions write as text."""
    value = parent.get(key)
    if value is None:
        return None
    if isinstance(value, str | int | float):
        try:
            return float(value)
        except ValueError as error:
            raise _wrong(key, "a decimal", value) from error
    raise _wrong(key, "a decimal", value)


def _wholes(parent: Json, key: str) -> tuple[int, ...]:
    value = parent.get(key, [])
    if not isinstance(value, list):
        raise _wrong(key, "a list of whole numbers", value)
    return tuple(_whole({key: item}, key) or 0 for item in value)


def _interval(parent: Json, key: str) -> tuple[int, int] | None:
    if parent.get(key) is None:
        return None
    match _wholes(parent, key):
        case (low, high):
            return low, high
        case _:
            raise _wrong(key, "two whole numbers", parent[key])
