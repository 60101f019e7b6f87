"""The shape of the status as Kubernetes would show it: camelCase, no floats, RFC 3339 times.

The cluster's schema is made of it: each list is bounded, and each description is shown by
`kubectl explain`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

# Twice the gamblers there are: one more must not make the stored statuses unreadable.
_MAX_GAMBLERS = 32
_MAX_STEPS = 20
_MAX_SUPERSEDED = 50
_MAX_HISTORY = 50
# Every inference that ever served in the rollout has one.
_MAX_CURSORS = 10_000

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
    """A draft checkpoint."""

    checkpoint: str = Field(description="Its name.")
    digest: str = Field(description="sha256:<hex> over its files.")
    uri: str = Field(description="Where its files lie.")


class StableJson(DraftJson):
    """The draft that serves."""

    acceptance_bps: int | None = Field(
        default=None, description="Accepted per drafted tokens where last measured; basis points."
    )


class CandidateJson(DraftJson):
    """A draft that the trainer published."""

    sequence: int = Field(description="The number of its publication, from 1.")
    trained_through: str = Field(
        default="", description="The newest trajectory that it was trained on."
    )


class CursorJson(JsonModel):
    """How far the outcomes of one inference were counted."""

    inference: str = Field(description="Its name.")
    instance: str = Field(description="Which of its starts listed them.")
    after: int = Field(description="The number of the last one counted.")


class ArmJson(JsonModel):
    """The counted requests of one draft."""

    requests: int = Field(description="How many.")
    acceptance: Decimal = Field(description="The mean of their acceptance.")


class EvidenceJson(JsonModel):
    """What people read first, then all that the judgement goes on from."""

    method: Literal["per-request-betting/v1"] = Field(
        default="per-request-betting/v1", description="The test by which it is judged."
    )
    requests: int = Field(description="How many requests were judged.")
    log_e: Decimal = Field(description="Natural logarithm of the e-value for better.")
    log_harm: Decimal = Field(description="Natural logarithm of the e-value for worse.")
    threshold: Decimal = Field(description="What either must reach.")
    effect_bps: int = Field(description="Estimated gain in acceptance; basis points.")
    # A list and no pair: the cluster's schema knows none.
    ci_bps: Annotated[tuple[int, ...], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="Its 95% interval, asymptotic; absent before two requests."
    )
    stable: ArmJson = Field(description="Those that the stable draft served.")
    candidate: ArmJson = Field(description="Those that the candidate served.")
    log_wealth: tuple[Decimal, ...] = Field(
        max_length=_MAX_GAMBLERS, description="Of each gambler on better."
    )
    log_harm_wealth: tuple[Decimal, ...] = Field(
        max_length=_MAX_GAMBLERS, description="Of each gambler on worse."
    )
    effect: Decimal = Field(description="Running mean of the effect.")
    effect_scatter: Decimal = Field(description="Sum of its squared deviations.")
    cursors: tuple[CursorJson, ...] = Field(
        default=(), max_length=_MAX_CURSORS, description="How far each inference was counted."
    )


class PlanJson(JsonModel):
    """What the rollout is held to, as the manifest said when it began."""

    steps_percent: tuple[int, ...] = Field(
        max_length=_MAX_STEPS, description="Shares of the traffic, in order."
    )
    alpha: str = Field(description="Bound on the chance of promoting a draft that is no better.")
    min_effect_bps: int = Field(description="By how much it must be better; basis points.")
    min_requests: int = Field(description="How many requests must be judged.")
    max_duration_seconds: Decimal = Field(description="How long it may take, pauses left out.")


class ClockJson(JsonModel):
    """Time spent analysing."""

    started_at: Time = Field(description="When the first request was judged.")
    paused_at: Time | None = Field(default=None, description="Since when it stands still.")
    paused_seconds: Decimal = Field(default=0.0, description="How long it stood still before.")


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
    """The rollout in progress, or the last one."""

    id: str = Field(description="<deployment>-<sequence of the candidate>.")
    candidate: CandidateJson = Field(description="The draft that is tried.")
    state: StateName = Field(description="Where it stands.")
    reason: str | None = Field(default=None, description="Why it came to its last states.")
    step: int | None = Field(default=None, description="The step in progress, from 0.")
    step_entered_at: Time | None = Field(default=None, description="When the step began.")
    step_entered_requests: int | None = Field(
        default=None, description="How many requests were judged when the step began."
    )
    clock: ClockJson | None = Field(default=None, description="How long it has taken.")
    without_stable: bool = Field(description="No draft served when it began.")
    plan: PlanJson = Field(description="Its terms.")
    evidence: EvidenceJson = Field(description="What was measured.")


class QueueJson(JsonModel):
    """Published drafts that no rollout took yet; only the newest waits."""

    sequence: int = Field(default=0, description="The newest publication seen.")
    waiting: CandidateJson | None = Field(default=None, description="The next rollout's.")
    superseded: tuple[str, ...] = Field(
        default=(),
        max_length=_MAX_SUPERSEDED,
        description="Digests of those that never had a rollout, newest first.",
    )


class VerdictJson(JsonModel):
    """How a rollout ended."""

    id: str = Field(description="The rollout's.")
    checkpoint: str = Field(description="The draft's name.")
    digest: str = Field(description="The draft's digest.")
    outcome: str = Field(description="Promoted, RolledBack or Inconclusive.")
    reason: str = Field(description="Why.")
    effect_bps: int = Field(description="Estimated gain in acceptance; basis points.")
    requests: int = Field(description="How many requests were judged.")
    at: Time = Field(description="When it ended.")


class ConditionJson(JsonModel):
    """Ready, Progressing or Degraded."""

    type: Literal["Ready", "Progressing", "Degraded"] = Field(description="Which condition.")
    status: Literal["True", "False"] = Field(description="Whether it holds.")
    reason: str = Field(description="Why, in one word.")
    message: str = Field(description="Why, for a person.")
    last_transition_time: Time = Field(description="When its status last changed.")
    observed_generation: int = Field(description="The generation that it is about.")


class LastCommandJson(JsonModel):
    """The answer to the newest aurora.dev/command annotation."""

    request: str = Field(description="The annotation's text.")
    outcome: Literal["Done", "Refused"] = Field(description="What became of it.")
    message: str = Field(description="Why it was refused.")
    at: Time = Field(description="When it was answered.")


class StatusJson(JsonModel):
    """What the operator saw and decided."""

    observed_generation: int = Field(default=0, description="The generation that it is about.")
    stable: StableJson | None = Field(default=None, description="The draft that serves.")
    rollout: RolloutJson | None = Field(
        default=None, description="The rollout in progress, or the last one."
    )
    queue: QueueJson = Field(default=QueueJson(), description="Drafts that wait for a rollout.")
    paused: bool = Field(default=False, description="Paused by command.")
    history: tuple[VerdictJson, ...] = Field(
        default=(), max_length=_MAX_HISTORY, description="Ended rollouts, newest first."
    )
    conditions: tuple[ConditionJson, ...] = Field(
        default=(), max_length=8, description="Ready, Progressing and Degraded."
    )
    last_command: LastCommandJson | None = Field(
        default=None, description="The answer to the newest command."
    )
    replicas: int | None = Field(default=None, description="Inference pods that exist.")
    ready_replicas: int | None = Field(default=None, description="Those that are ready.")
    updated_replicas: int | None = Field(default=None, description="Those of the current template.")
    selector: str | None = Field(default=None, description="Finds the inference pods by label.")
