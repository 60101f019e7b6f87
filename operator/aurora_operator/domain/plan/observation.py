"""What a runtime sees of a deployment at one moment, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aurora_operator.domain.plan.command import Command
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.status.deployment import Candidate, Draft


@dataclass(frozen=True, slots=True)
class ComponentView:
    """One component's health; `message` says why it is not ready, `failing` that it was tried."""

    name: str
    ready: bool
    failing: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps the operator from doing its part; `reason` is one CamelCase word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Scale:
    """How many inferences are wanted, exist, are ready and are of the current template.

    `selector` finds them by their labels.
    """

    wanted: int
    replicas: int
    ready: int
    updated: int
    selector: str


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
class Observation:
    """Everything that `plan` may know of the world at one moment."""

    generation: int = 1
    # The draft to begin with, as the manifest names it; no digest: whatever its files say.
    initial: Draft | None = None
    # Those that answered and are not about to end.
    inferences: tuple[InferenceView, ...] = ()
    # Names of those that serve: a rollout waits for each of them.
    expected: frozenset[str] = frozenset()
    # Names of all that exist, whether they serve, start or end.
    existing: frozenset[str] = frozenset()
    # Why one was not seen or did not do what it was asked, by its name.
    absences: Mapping[str, str] = field(default_factory=dict)
    batches: tuple[OutcomeBatch, ...] = ()
    published: tuple[Candidate, ...] = ()
    # Why a draft was refused for good, and by whom, by digest.
    refusals: Mapping[str, str] = field(default_factory=dict)
    command: Command | None = None
    components: tuple[ComponentView, ...] = ()
    problems: tuple[Problem, ...] = ()
    # None where there is one inference and no more.
    scale: Scale | None = None

    @property
    def participants(self) -> tuple[InferenceView, ...]:
        """The inferences that a rollout is about."""
        return tuple(view for view in self.inferences if view.name in self.expected)

    @property
    def awaited(self) -> Mapping[str, str]:
        """Why inferences that serve cannot take part, by name; empty where all can."""
        seen = {view.name for view in self.inferences}
        return {
            name: self.absences.get(name, "not asked yet")
            for name in sorted(self.expected)
            if name in self.absences or name not in seen
        }
