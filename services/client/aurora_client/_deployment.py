"""What the operator tells of a deployment: its components, its drafts and its rollout."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Component:
    """One process: redis, buffer, inference or trainer; `message` says why it is not ready."""

    name: str
    pid: int | None
    ready: bool
    restarts: int
    address: str
    log_path: str
    message: str


@dataclass(frozen=True, slots=True)
class ServedDraft:
    """A draft with a part in serving; `acceptance_bps` is its acceptance rate, where known."""

    checkpoint: str
    digest: str
    acceptance_bps: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What has been measured of a candidate.

    It is promoted once `log_e` reaches `threshold` and rolled back once `log_harm` does (natural
    logarithms); `effect_bps` is its acceptance rate minus the stable draft's, with an interval
    where there is one.
    """

    requests: int
    log_e: float | None = None
    log_harm: float | None = None
    threshold: float | None = None
    effect_bps: int | None = None
    interval_bps: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """The rollout in progress or the last one.

    `step` counts from 0 into `steps_percent`, the candidate's share of new requests at each step;
    `reason` says why it ends or ended.
    """

    id: str
    state: str
    reason: str = ""
    candidate: ServedDraft | None = None
    step: int | None = None
    steps_percent: tuple[int, ...] = ()
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class PastRollout:
    """A rollout that ended; `at` is RFC 3339."""

    id: str
    outcome: str
    checkpoint: str = ""
    reason: str = ""
    requests: int = 0
    effect_bps: int | None = None
    at: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """A Kubernetes condition: `status` is True, False or Unknown."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """An AuroraDeployment; `history` is newest first, `status_json` all that its status says.

    `queued` is the checkpoint whose rollout comes next.
    """

    name: str
    namespace: str
    stable: ServedDraft | None
    rollout: Rollout | None
    queued: ServedDraft | None
    is_paused: bool
    history: tuple[PastRollout, ...]
    conditions: tuple[Condition, ...]
    components: tuple[Component, ...]
    status_json: str


@dataclass(frozen=True, slots=True)
class PublishedDraft:
    """A checkpoint in the model store.

    `role` is `stable`, `candidate` or empty; `outcome` that of its rollout, empty without one;
    `acceptance` the trainer's estimate on held-out trajectories, 0..1.
    """

    name: str
    digest: str
    parent_digest: str
    trained_through: str
    role: str
    outcome: str
    published_at_ms: int
    acceptance: float


@dataclass(frozen=True, slots=True)
class RolloutState:
    """The rollout that a command went to, and its state after it."""

    rollout_id: str
    state: str
