"""A deployment as its operator reports it: components, drafts and rollout."""

from __future__ import annotations

from dataclasses import dataclass

from aurora_client._status import Condition, PastRollout, Rollout, ServedDraft, Status


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
class Deployment:
    """An AuroraDeployment; `status_json` is its status as the operator wrote it."""

    name: str
    namespace: str
    is_paused: bool
    components: tuple[Component, ...]
    status: Status
    status_json: str

    @property
    def stable(self) -> ServedDraft | None:
        return self.status.stable

    @property
    def rollout(self) -> Rollout | None:
        """The rollout in progress or the last one."""
        return self.status.rollout

    @property
    def queued(self) -> ServedDraft | None:
        """The checkpoint whose rollout comes next."""
        return None if self.status.queue is None else self.status.queue.waiting

    @property
    def history(self) -> tuple[PastRollout, ...]:
        """Newest first."""
        return self.status.history

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return self.status.conditions


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
    """The rollout that a command applied to, and its state afterwards."""

    rollout_id: str
    state: str
