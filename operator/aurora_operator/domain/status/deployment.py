"""What Aurora remembers of a deployment between two looks at it: the status, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from aurora_operator.domain.rollout.evidence import Evidence
from aurora_operator.domain.rollout.state import Ended, RolloutPlan, State


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft checkpoint; two are the same where their digests are."""

    checkpoint: str
    digest: str
    uri: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A draft that the trainer published; `sequence` counts its publications from 1."""

    draft: Draft
    sequence: int
    trained_through: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """Published candidates that no rollout took yet: only the newest waits (QueueLatest)."""

    # The newest publication ever seen; the trainer is asked for what comes after it.
    sequence: int = 0
    waiting: Candidate | None = None
    # Digests of those that never had a rollout, newest first, bounded.
    superseded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an inference's outcomes were counted; another instance begins at 0."""

    instance: str
    after: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """The rollout in progress, or the last one once its state is an ended one."""

    id: str
    candidate: Candidate
    plan: RolloutPlan
    state: State
    # No stable draft was served when it began: the candidate is compared with plain decoding.
    without_stable: bool = False
    evidence: Evidence = field(default_factory=Evidence)
    # By the inference's name; kept with the evidence, so that nothing is counted twice.
    cursors: Mapping[str, Cursor] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return not isinstance(self.state, Ended)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a rollout ended, for the history."""

    id: str
    checkpoint: str
    digest: str
    outcome: str
    reason: str
    effect_bps: int
    requests: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Condition:
    type: Literal["Ready", "Progressing", "Degraded"]
    status: bool
    reason: str
    message: str
    last_transition_time: datetime
    observed_generation: int


@dataclass(frozen=True, slots=True)
class LastCommand:
    """The answer to the last written order; `message` says why it was refused."""

    request: str
    outcome: Literal["Done", "Refused"]
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """An AuroraDeployment's status."""

    observed_generation: int = 0
    stable: Draft | None = None
    # The stable draft's acceptance where it was last measured.
    stable_acceptance_bps: int | None = None
    rollout: Rollout | None = None
    queue: Queue = Queue()
    # Paused by command; the manifest may pause as well.
    paused: bool = False
    # Newest first, bounded.
    history: tuple[Verdict, ...] = ()
    conditions: tuple[Condition, ...] = ()
    last_command: LastCommand | None = None
    # Of the inferences, and how to find them; None where they cannot be scaled.
    replicas: int | None = None
    ready_replicas: int | None = None
    updated_replicas: int | None = None
    selector: str | None = None

    @property
    def live_rollout(self) -> Rollout | None:
        return self.rollout if self.rollout is not None and self.rollout.is_live else None

    @property
    def decided(self) -> object:
        """The part on which actions rest."""
        rollout = self.rollout
        return self.stable, rollout and (rollout.id, rollout.state)

    @property
    def needed_digests(self) -> frozenset[str]:
        """The drafts that a rollout or a restart may still want."""
        rollout, waiting = self.live_rollout, self.queue.waiting
        drafts = (
            self.stable,
            None if rollout is None else rollout.candidate.draft,
            None if waiting is None else waiting.draft,
        )
        return frozenset(draft.digest for draft in drafts if draft is not None)
