"""How a new draft is tried and promoted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from aurora_operator.domain.manifest.field_type import Alpha, Duration, PositiveDuration, rule
from aurora_operator.domain.manifest.quantity import parse_duration
from aurora_operator.domain.manifest.spec.model import STEPS_PROBLEM, Model, with_rules
from aurora_operator.domain.rollout.guardrail import GUARDRAILS, MAX_GUARDRAILS
from aurora_operator.domain.rollout.state import MAX_STEPS

_INCREASING = rule(
    "self.map(step, step.weightPercent).isSorted() && "
    "self.all(one, self.exists_one(other, other.weightPercent == one.weightPercent))",
    "weightPercent must increase from step to step",
)

_REPLAYED = "a dry run serves no candidate: leave out analysis.method, or set it to Replay"


class Step(Model):
    """One step of a rollout."""

    weight_percent: int = Field(ge=1, le=99)
    """The candidate's share of new requests, or with Switchback of the time."""


class Analysis(Model):
    """When a candidate counts as better."""

    method: Literal["Replay", "Canary"] = "Replay"
    """What proves that a candidate is better. Replay: both drafts are scored on the same recorded
    requests, and live traffic only confirms it; Canary: live traffic alone, which takes about
    twenty times as many requests. Without a stable draft to compare with, or with a suspended
    trainer, a rollout begins as with Canary."""
    alpha: Alpha = "0.01"
    """Bound on the probability that a candidate that is not better is ever promoted; a decimal."""
    min_effect_bps: int = Field(default=0, ge=0, le=9999)
    """By how much it must be better; basis points. With Replay of the verify steps, which is of the
    time, that it saves; with Canary of its acceptance rate."""
    min_requests: int = Field(default=300, ge=1, le=1_000_000_000)
    """How many live requests must be judged before a promotion."""
    max_duration: PositiveDuration = "6h"
    """After this long without a verdict the stable draft stays; pauses do not count."""

    @property
    def max_duration_seconds(self) -> float:
        return parse_duration(self.max_duration).total_seconds()


def _name_schema() -> dict[str, Any]:
    meanings = "; ".join(f"{name}: {one.meaning}" for name, one in GUARDRAILS.items())
    return {"enum": list(GUARDRAILS), "description": f"What is compared. {meanings}."}


class Guardrail(Model):
    """What a candidate must not make worse."""

    name: str = Field(json_schema_extra=lambda schema: schema.update(_name_schema()))
    margin_bps: int | None = Field(default=None, ge=0, le=10_000)
    """By how much it may be worse; basis points. Without it the guardrail's own margin."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in GUARDRAILS:
            raise ValueError(f'"{name}" is not allowed; allowed: {", ".join(GUARDRAILS)}')
        return name


def _every_guardrail() -> tuple[Guardrail, ...]:
    return tuple(Guardrail(name=name, marginBps=one.margin_bps) for name, one in GUARDRAILS.items())


def _guardrails_schema(schema: dict[str, Any]) -> None:
    schema["default"] = [each.model_dump(by_alias=True) for each in _every_guardrail()]
    schema["maxItems"] = MAX_GUARDRAILS
    schema["x-kubernetes-list-type"] = "map"
    schema["x-kubernetes-list-map-keys"] = ["name"]


class Rollout(Model):
    """How a new draft is tried and promoted."""

    model_config = with_rules(
        rule(
            "!has(self.dryRun) || !self.dryRun || !has(self.analysis) || "
            "!has(self.analysis.method) || self.analysis.method != 'Canary'",
            _REPLAYED,
            "dryRun",
        ),
    )

    paused: bool = False
    """Hold the rollout where it is and begin no other. Harm still rolls back."""
    supersede: Literal["QueueLatest"] = "QueueLatest"
    """Of the drafts published during a rollout, the newest is tried next."""
    assignment: Literal["PerRequest", "Switchback"] | None = None
    """PerRequest: each new request draws its draft independently. Switchback: drafts alternate in
    pairs of time blocks. By default the engine's own: native PerRequest, vllm Switchback."""
    # Strictness is each step's; a YAML sequence is a list, never a tuple.
    steps: tuple[Step, ...] = Field(
        default=(Step(weightPercent=5), Step(weightPercent=20), Step(weightPercent=50)),
        strict=False,
        json_schema_extra={
            "minItems": 1,
            "maxItems": MAX_STEPS,
            "x-kubernetes-validations": [dict(_INCREASING)],
        },
    )
    """The candidate's traffic shares, which must increase; at most 20."""
    analysis: Analysis = Analysis()
    """When a candidate counts as better."""
    guardrails: tuple[Guardrail, ...] = Field(
        default_factory=_every_guardrail, strict=False, json_schema_extra=_guardrails_schema
    )
    """What a candidate must not make worse: harm rolls it back. Empty: nothing but acceptance."""
    watch_after_promotion: Duration = "1h"
    """How long the former draft stays at hand: if replay shows that the new one is slower on what
    was recorded since, it is stable again. 0s: no watch. With Replay only."""
    dry_run: bool = False
    """Judge candidates and promote none. Recorded requests are replayed; no inference stages the
    candidate and no live request is served with it, so live guards and minRequests have no say. The
    verdict that it would have had is in history, Events and metrics (WouldPromote, WouldRollBack),
    and the next candidate is taken. Applies from the next rollout on; needs method Replay."""
    on_inconclusive: Literal["KeepStable"] = "KeepStable"
    """What serves if time runs out without a verdict."""

    @field_validator("dry_run")
    @classmethod
    def _replayed(cls, dry_run: bool, info: ValidationInfo) -> bool:
        analysis: Analysis | None = info.data.get("analysis")
        if dry_run and analysis is not None and analysis.method == "Canary":
            raise ValueError(_REPLAYED)
        return dry_run

    @property
    def watch_seconds(self) -> float:
        return parse_duration(self.watch_after_promotion).total_seconds()

    @field_validator("guardrails")
    @classmethod
    def _distinct(cls, guardrails: tuple[Guardrail, ...]) -> tuple[Guardrail, ...]:
        names = [guardrail.name for guardrail in guardrails]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twice)} has several entries; each guardrail has at most one")
        return guardrails

    @field_validator("steps")
    @classmethod
    def _increasing(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        # Not min_length: pydantic would count only the valid entries.
        if not 1 <= len(steps) <= MAX_STEPS:
            raise ValueError(f"has {len(steps)} entries; it must have 1 to {MAX_STEPS}")
        problems = [
            (index, f"{step.weight_percent} is not above {steps[index - 1].weight_percent}")
            for index, step in enumerate(steps)
            if index > 0 and step.weight_percent <= steps[index - 1].weight_percent
        ]
        if problems:
            raise PydanticCustomError(STEPS_PROBLEM, "{problems}", {"problems": problems})
        return steps
