"""What a runtime observes of a deployment at one moment, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aurora_operator.domain.plan.command import Command
from aurora_operator.domain.rollout.outcome import Outcome, Pair
from aurora_operator.domain.rollout.parity import Agreement
from aurora_operator.domain.rollout.replay import Score
from aurora_operator.domain.status.deployment import Candidate, Draft, Retained


@dataclass(frozen=True, slots=True)
class ComponentView:
    """One component's health; `message` says why it is not ready, `failing` that it was tried."""

    name: str
    ready: bool
    failing: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps the operator from doing its work; `reason` is one CamelCase word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Scale:
    """How many inferences are wanted, exist, are ready and have the current template.

    `selector` matches their labels. `ignored`: spec.replicas, if an autoscaler decides otherwise.
    """

    wanted: int
    replicas: int
    ready: int
    updated: int
    selector: str
    ignored: int | None = None


@dataclass(frozen=True, slots=True)
class InferenceView:
    """One running inference's own status; `instance` changes with each start."""

    name: str
    instance: str
    stable: Draft | None = None
    candidate: Draft | None = None
    rollout_id: str = ""
    candidate_bps: int = 0
    device: str = ""
    problems: tuple[Problem, ...] = ()
    retained: tuple[Retained, ...] = ()


@dataclass(frozen=True, slots=True)
class OutcomeBatch:
    """Outcomes that one inference instance lists for a rollout, each with its sequence number, a
    pair of blocks with that of its last.

    `open_stable`, `open_candidate`: requests admitted after these, by the draft they were given.
    """

    inference: str
    instance: str
    rollout_id: str
    outcomes: tuple[tuple[int, Outcome | Pair], ...]
    open_stable: int = 0
    open_candidate: int = 0


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Scores of recorded requests that a rollout's two drafts were replayed on, in order.

    `after`: the stream id through which all were read. `refusal`: why the drafts cannot be
    compared, or empty. `agreements`: what became in service of tokens that either draft proposed.
    """

    rollout_id: str
    scores: tuple[Score, ...] = ()
    after: str = ""
    refusal: str = ""
    agreements: tuple[Agreement, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An inference refuses a draft. `lasting`: it did so again and again.

    `may_retry`: it is time to try again.
    """

    inference: str
    digest: str
    reason: str
    lasting: bool
    may_retry: bool

    def __str__(self) -> str:
        return f"{self.inference}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Restorable:
    """What an earlier deployment of this name left in the model store: its stable draft.

    `seen_sequence`: the newest publication that it knew. `attempts`: as in its status.
    """

    candidate: Candidate
    seen_sequence: int
    attempts: int


@dataclass(frozen=True, slots=True)
class TrainerView:
    """The trainer's own status at its last change of phase, checkpoint or problem.

    `problem`: what has failed in it for a minute, or empty. `withheld`: why its last round
    published nothing, or empty.
    """

    phase: str
    min_new_trajectories: int
    steps_per_round: int
    checkpoint: str = ""
    acceptance_bps: int | None = None
    problem: str = ""
    withheld: str = ""
    restorable: Restorable | None = None


# The verdicts that were told of, by their keys.
Sent = frozenset[tuple[str, object]]


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that `plan` knows of the world at one moment."""

    generation: int = 1
    # The manifest's initial draft; without a digest, its files decide.
    initial: Draft | None = None
    # Those that answered and are not terminating.
    inferences: tuple[InferenceView, ...] = ()
    # Names of those that serve; a rollout waits for each of them.
    expected: frozenset[str] = frozenset()
    # Names of all that exist: serving, starting or terminating.
    existing: frozenset[str] = frozenset()
    # Why one could not be reached or failed an action, by name.
    absences: Mapping[str, str] = field(default_factory=dict)
    batches: tuple[OutcomeBatch, ...] = ()
    # Of the rollout in progress, and of the watch over the last promotion.
    replay: ReplayBatch | None = None
    watch: ReplayBatch | None = None
    published: tuple[Candidate, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    command: Command | None = None
    # None where no records, or no notifications, are sent.
    records: Sent | None = None
    announcements: Sent | None = None
    components: tuple[ComponentView, ...] = ()
    problems: tuple[Problem, ...] = ()
    # None until it said something.
    trainer: TrainerView | None = None
    # None on one machine, which has one inference.
    scale: Scale | None = None

    @property
    def participants(self) -> tuple[InferenceView, ...]:
        """The inferences that take part in a rollout."""
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

    @property
    def is_stopped(self) -> bool:
        """Whether no inference exists or is wanted."""
        return not self.existing and all(view.name != "inference" for view in self.components)

    def refusal(self, digest: str) -> Refusal | None:
        """A refusal of this draft, a lasting one if there is one."""
        found = [each for each in self.refusals if each.digest == digest]
        return max(found, key=lambda each: each.lasting, default=None)

    def may_stage(self, inference: str, digest: str) -> bool:
        """Whether an inference may be given a draft now."""
        return not any(
            (each.inference, each.digest) == (inference, digest) and not each.may_retry
            for each in self.refusals
        )
