"""What a runtime sees of a deployment at one moment, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aurora_operator.domain.deployment import Candidate, Draft
from aurora_operator.domain.evidence import Outcome


@dataclass(frozen=True, slots=True)
class ComponentView:
    """One component's health; `message` says why it is not ready, `failing` that it was tried."""

    name: str
    ready: bool
    failing: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class InferenceView:
    """One running inference, as it describes itself; `instance` is new at each of its starts."""

    name: str
    instance: str
    stable: Draft | None = None
    candidate: Draft | None = None
    rollout_id: str = ""
    candidate_bps: int = 0


@dataclass(frozen=True, slots=True)
class OutcomeBatch:
    """Outcomes that one inference instance lists for a rollout, each with its sequence number."""

    inference: str
    instance: str
    rollout_id: str
    outcomes: tuple[tuple[int, Outcome], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """What a person ordered; abort and promote name the rollout they mean."""

    kind: Literal["pause", "resume", "abort", "promote"]
    rollout_id: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that `plan` may know of the world at one moment."""

    generation: int = 1
    inferences: tuple[InferenceView, ...] = ()
    batches: tuple[OutcomeBatch, ...] = ()
    published: tuple[Candidate, ...] = ()
    # Why a draft was refused for good, by digest.
    refusals: Mapping[str, str] = field(default_factory=dict)
    command: Command | None = None
    components: tuple[ComponentView, ...] = ()
