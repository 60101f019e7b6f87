"""Reconciles a deployment's rollout: observes its pods, plans, writes the status, acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from pydantic import ValidationError

from aurora_common.errors import ConflictError, InvalidInputError, ManifestError, NotFoundError
from aurora_operator.adapters.kubernetes import Json, KubernetesApi
from aurora_operator.adapters.reporting import reporting
from aurora_operator.adapters.webhook import Webhook
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.directory import Directory, Tracked
from aurora_operator.cluster.event_recorder import EventRecorder, notices, notification_failed
from aurora_operator.cluster.fleet import PodFleet, is_run_by
from aurora_operator.cluster.kinds import DEPLOYMENT, POD, Key
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.status_store import ApiStatusStore, status_of
from aurora_operator.cluster.trainer_link import TrainerLink
from aurora_operator.domain.manifest.parser import deployment_from_object
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.command import Command, parse_request
from aurora_operator.domain.plan.condition import conditions
from aurora_operator.domain.plan.housekeeping import housekeeping
from aurora_operator.domain.plan.initial import initial_draft
from aurora_operator.domain.plan.observation import (
    ComponentView,
    Observation,
    Problem,
    Scale,
    TrainerView,
)
from aurora_operator.domain.status.deployment import Candidate, Status
from aurora_operator.reconcile.reconciler import Generation, Reconciler

# `aurora.dev/command: abort/<rollout id>` or `promote/<rollout id>`.
COMMAND_ANNOTATION = "aurora.dev/command"

# Poll interval while something is in progress that no event reports.
_LIVE_SECONDS = 1.0
# Poll interval while the last promotion is watched; the judge goes on for longer unasked.
_WATCH_SECONDS = 10.0
# Poll interval while pods are not ready, since the cause may appear without an event of theirs.
# It doubles with each reconcile that changes nothing.
_FIRST_WAIT_SECONDS = 10.0
_LAST_WAIT_SECONDS = 320.0
# Poll interval while all is well: whether pods can be controlled is in no event.
_PROBE_SECONDS = 60.0
# Reasons of the conditions that the object reconciler's problems lead to.
_OBJECT_REASONS = frozenset(
    {"NameTaken", "EngineTaken", "ApplyRefused", "InvalidSpec", "VolumeNotEnlarged"}
)


class Workloads(Protocol):
    """The components' state, by their workloads and pods."""

    async def __call__(
        self, key: Key, deployment: AuroraDeployment, pods: Sequence[Json]
    ) -> tuple[tuple[ComponentView, ...], Scale | None]: ...
    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        ...


@dataclass(slots=True)
class _Session:
    """What is kept of a deployment between two reconciles."""

    uid: str
    reconciler: Reconciler
    store: ApiStatusStore
    fleet: PodFleet
    trainer: TrainerLink
    wait_seconds: float = _FIRST_WAIT_SECONDS


class RolloutReconciler:
    """`enqueue` is called with a deployment whose trainer published a checkpoint."""

    def __init__(
        self,
        api: KubernetesApi,
        directory: Directory,
        children: ChildStore,
        *,
        workloads: Workloads,
        recorder: EventRecorder,
        metrics: Metrics,
        webhook: Webhook | None = None,
        enqueue: Callable[[Key], None],
    ) -> None:
        self._api = api
        self._directory = directory
        self._children = children
        self._workloads = workloads
        self._recorder = recorder
        self._metrics = metrics
        self._webhook = webhook
        self._enqueue = enqueue
        self._sessions: dict[Key, _Session] = {}

    async def reconcile(self, key: Key) -> float | None:
        """The seconds until the next reconcile, if any."""
        tracked = self._directory.get(key)
        session = self._sessions.get(key)
        if session is not None and (tracked is None or tracked.uid != session.uid):
            del self._sessions[key]
            self._workloads.forget(key)
            await _close(session)
        if tracked is None or "deletionTimestamp" in tracked.body["metadata"]:
            return None
        if tracked.problems is None and key not in self._sessions and not _is_live(tracked):
            # The object reconciler comes first and enqueues: before it there is nothing to report.
            return None
        try:
            return await self._reconcile(tracked)
        except NotFoundError:
            # Deleted meanwhile; its event closes the session.
            return None
        except ConflictError:
            # Raised, for the queue's backoff: another writer may write again and again.
            await self._reload(tracked)
            raise

    async def close(self) -> None:
        """Closes every connection to pods."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await _close(session)

    async def _reconcile(self, tracked: Tracked) -> float | None:
        body = tracked.body
        session = self._sessions.get(tracked.key)
        if session is not None and session.store.version != tracked.known.version:
            # Another writer's status, or ours whose answer was lost, or only the spec changed.
            session.store.version = tracked.known.version
            session.reconciler.status = status_of(body)
        try:
            if session is None:
                session = self._sessions[tracked.key] = self._open(tracked, body)
            elif session.reconciler.generation.number != body["metadata"]["generation"]:
                session.reconciler.generation = _generation(body)
        except (ValidationError, InvalidInputError) as error:
            await self._refuse(tracked, session, body, error)
            return None
        return await self._advance(tracked, session, body)

    async def _advance(self, tracked: Tracked, session: _Session, body: Json) -> float | None:
        reconciler = session.reconciler
        generation, deployment = reconciler.generation, reconciler.generation.deployment
        secure = deployment.spec.security.tls.mode != "Disabled"
        found = self._children.of_kind(tracked.key, POD.kind)
        pods = [pod for pod in found if is_run_by(pod, tracked.key)]
        await session.fleet.update_pods(pods, tracked.identity, secure=secure)
        await session.trainer.follow(pods, tracked.identity, secure=secure)
        fleet = session.fleet
        fleet.judge = session.trainer.judge
        fleet.components, fleet.scale = await self._workloads(tracked.key, deployment, pods)
        before = reconciler.status
        known = tracked.problems
        fleet.problems = _known_problems(before) if known is None else known
        fleet.problems += session.trainer.problems()
        result = await reconciler.reconcile(_command(body))
        keep = deployment.spec.model_store.keep
        session.trainer.prune(housekeeping(keep, reconciler.status, generation.initial))
        if result.moved:
            return 0.0
        if result.live:
            return _LIVE_SECONDS
        if result.watches:
            return _WATCH_SECONDS
        if reconciler.status != before:
            session.wait_seconds = _FIRST_WAIT_SECONDS
        if session.trainer.is_failing:
            return _FIRST_WAIT_SECONDS
        if all(view.ready for view in fleet.components):
            return _PROBE_SECONDS if fleet.inferences else None
        wait = session.wait_seconds
        session.wait_seconds = min(_LAST_WAIT_SECONDS, 2 * wait)
        return wait

    def _open(self, tracked: Tracked, body: Json) -> _Session:
        key = tracked.key
        fleet = PodFleet(key)
        store = self._store(tracked)

        def offer(candidate: Candidate) -> None:
            reconciler.offer(candidate)
            self._enqueue(key)

        def observe(view: TrainerView) -> None:
            if reconciler.observe_trainer(view):
                self._enqueue(key)

        trainer = TrainerLink(
            key,
            after_sequence=lambda: reconciler.status.queue.sequence,
            offer=offer,
            observe=observe,
        )
        reconciler = Reconciler(
            _generation(body),
            status_of(body),
            store=store,
            fleet=fleet,
            # Watchers of the status use the API server.
            on_change=lambda: None,
            reports=reporting(
                trainer.keep_record,
                self._webhook,
                on_sent=lambda: self._enqueue(key),
                on_failure=lambda cause: self._recorder.record(
                    key, tracked.uid, [notification_failed(cause)]
                ),
            ),
        )
        return _Session(tracked.uid, reconciler, store, fleet, trainer)

    def _store(self, tracked: Tracked) -> ApiStatusStore:
        key, uid = tracked.key, tracked.uid

        def written(before: Status, after: Status) -> None:
            self._recorder.record(key, uid, notices(before, after))
            self._metrics.count_verdicts(before, after)

        return ApiStatusStore(
            self._api,
            self._directory,
            key,
            uid,
            version=tracked.known.version,
            metrics=self._metrics,
            on_written=written,
        )

    async def _refuse(
        self, tracked: Tracked, session: _Session | None, body: Json, error: Exception
    ) -> None:
        """Reports an invalid spec in the conditions; the pods run on unchanged."""
        status = status_of(body)
        number = body["metadata"]["generation"]
        components = () if session is None else session.fleet.components
        message = "; ".join(error.problems) if isinstance(error, ManifestError) else str(error)
        problems = tracked.problems or (Problem("InvalidSpec", message),)
        observed = Observation(
            generation=number,
            components=components,
            problems=problems,
            scale=None if session is None else session.fleet.scale,
        )
        status = replace(status, observed_generation=number)
        status = replace(status, conditions=conditions(status, observed, now=datetime.now(UTC)))
        await self._store(tracked).save(status)

    async def _reload(self, tracked: Tracked) -> None:
        """Reads the deployment from the API server, for the next reconcile."""
        key = tracked.key
        try:
            body = await self._api.get(DEPLOYMENT, key.namespace, key.name)
        except NotFoundError:
            self._directory.forget(key, tracked.uid)
            return
        self._directory.remember(body)


def _is_live(tracked: Tracked) -> bool:
    return status_of(tracked.body).live_rollout is not None


def _known_problems(status: Status) -> tuple[Problem, ...]:
    """The objects' problems that an earlier operator reported, until this one checked them."""
    return tuple(
        Problem(condition.reason, condition.message)
        for condition in status.conditions
        if condition.type == "Degraded" and condition.reason in _OBJECT_REASONS
    )


def _generation(body: Json) -> Generation:
    deployment = deployment_from_object(body)
    initial = initial_draft(deployment)
    return Generation(body["metadata"]["generation"], deployment, initial)


def _command(body: Json) -> Command | None:
    """The command in a deployment's annotation, if any."""
    value = body["metadata"].get("annotations", {}).get(COMMAND_ANNOTATION, "")
    return parse_request(value.strip())


async def _close(session: _Session) -> None:
    await session.reconciler.close()
    await session.trainer.close()
    await session.fleet.close()
