"""How a new draft earns its place."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from aurora_operator.domain.manifest.field_type import Alpha, PositiveDuration, rule
from aurora_operator.domain.manifest.quantity import parse_duration
from aurora_operator.domain.manifest.spec.model import STEPS_PROBLEM, Model

_MAX_STEPS = 20
_INCREASING = rule(
    "self.map(step, step.weightPercent).isSorted() && "
    "self.all(one, self.exists_one(other, other.weightPercent == one.weightPercent))",
    "weightPercent must increase from step to step",
)


class Step(Model):
    """One step of a rollout."""

    weight_percent: int = Field(ge=1, le=99)
    """The candidate's share of new requests."""


class Analysis(Model):
    """When a candidate counts as better."""

    alpha: Alpha = "0.01"
    """The probability with which a candidate that is not better may ever be promoted; a decimal."""
    min_effect_bps: int = Field(default=0, ge=0, le=9999)
    """By how much its acceptance must be higher; basis points."""
    min_requests: int = Field(default=300, ge=1, le=1_000_000_000)
    """How many requests must be judged before a promotion."""
    max_duration: PositiveDuration = "6h"
    """After so long without a verdict the stable draft stays; pauses do not count."""

    @property
    def max_duration_seconds(self) -> float:
        return parse_duration(self.max_duration).total_seconds()


class Rollout(Model):
    """How a new draft earns its place."""

    paused: bool = False
    """Hold the rollout where it is, and begin no other. Harm still rolls back."""
    supersede: Literal["QueueLatest"] = "QueueLatest"
    """Of the drafts published during a rollout, the newest is tried next."""
    assignment: Literal["PerRequest"] = "PerRequest"
    """Each new request draws its draft by itself."""
    # Strictness is each step's; a YAML sequence is a list, never a tuple.
    steps: tuple[Step, ...] = Field(
        default=(Step(weightPercent=5), Step(weightPercent=20), Step(weightPercent=50)),
        strict=False,
        json_schema_extra={
            "minItems": 1,
            "maxItems": _MAX_STEPS,
            "x-kubernetes-validations": [dict(_INCREASING)],
        },
    )
    """The candidate's shares of the traffic, which must increase; at most 20."""
    analysis: Analysis = Analysis()
    """When a candidate counts as better."""
    on_inconclusive: Literal["KeepStable"] = "KeepStable"
    """What serves where time ran out without a verdict."""

    @field_validator("steps")
    @classmethod
    def _increasing(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        # Not min_length: pydantic would count only the entries that are right in themselves.
        if not 1 <= len(steps) <= _MAX_STEPS:
            raise ValueError(f"has {len(steps)} entries; it must have 1 to {_MAX_STEPS}")
        problems = [
            (index, f"{step.weight_percent} is not above {steps[index - 1].weight_percent}")
            for index, step in enumerate(steps)
            if index > 0 and step.weight_percent <= steps[index - 1].weight_percent
        ]
        if problems:
            raise PydanticCustomError(STEPS_PROBLEM, "{problems}", {"problems": problems})
        return steps
