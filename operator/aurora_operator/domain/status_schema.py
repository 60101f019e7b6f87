"""The shape of the status as Kubernetes would show it: camelCase, no floats, RFC 3339 times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

# repr gives the shortest text that reads back as the same float, so a restart is exact.
Decimal = Annotated[
    float, BeforeValidator(float), PlainSerializer(repr, return_type=str, when_used="json")
]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]


class JsonModel(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class DraftJson(JsonModel):
    checkpoint: str
    digest: str
    uri: str


class StableJson(DraftJson):
    acceptance_bps: int | None = None


class CandidateJson(DraftJson):
    sequence: int
    trained_through: str = ""


class CursorJson(JsonModel):
    inference: str
    instance: str
    after: int


class ArmJson(JsonModel):
    requests: int
    acceptance: Decimal


class EvidenceJson(JsonModel):
    """What people read first, then all that the judgement goes on from."""

    method: Literal["per-request-betting/v1"] = "per-request-betting/v1"
    requests: int
    log_e: Decimal
    log_harm: Decimal
    threshold: Decimal
    effect_bps: int
    # 95%, asymptotic; absent before two requests.
    ci_bps: tuple[int, int] | None = None
    stable: ArmJson
    candidate: ArmJson
    log_wealth: tuple[Decimal, ...]
    log_harm_wealth: tuple[Decimal, ...]
    effect: Decimal
    effect_scatter: Decimal
    cursors: tuple[CursorJson, ...] = ()


class PlanJson(JsonModel):
    steps_percent: tuple[int, ...]
    alpha: str
    min_effect_bps: int
    min_requests: int
    max_duration_seconds: Decimal


class ClockJson(JsonModel):
    started_at: Time
    paused_at: Time | None = None
    paused_seconds: Decimal = 0.0


StateName = Literal[
    "Pending",
    "WaitingForTraffic",
    "Analyzing",
    "Promoting",
    "Promoted",
    "RolledBack",
    "Inconclusive",
]


class RolloutJson(JsonModel):
    id: str
    candidate: CandidateJson
    state: StateName
    reason: str | None = None
    step: int | None = None
    step_entered_at: Time | None = None
    step_entered_requests: int | None = None
    clock: ClockJson | None = None
    without_stable: bool
    plan: PlanJson
    evidence: EvidenceJson


class QueueJson(JsonModel):
    sequence: int = 0
    waiting: CandidateJson | None = None
    superseded: tuple[str, ...] = ()


class VerdictJson(JsonModel):
    id: str
    checkpoint: str
    digest: str
    outcome: str
    reason: str
    effect_bps: int
    requests: int
    at: Time


class ConditionJson(JsonModel):
    type: Literal["Ready", "Progressing", "Degraded"]
    status: Literal["True", "False"]
    reason: str
    message: str
    last_transition_time: Time
    observed_generation: int


class StatusJson(JsonModel):
    observed_generation: int = 0
    stable: StableJson | None = None
    rollout: RolloutJson | None = None
    queue: QueueJson = QueueJson()
    paused: bool = False
    history: tuple[VerdictJson, ...] = ()
    conditions: tuple[ConditionJson, ...] = ()
