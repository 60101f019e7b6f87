"""One look at a deployment's rollout: its pods are asked, the plan decides, the status is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from pydantic import ValidationError

from aurora_common.errors import ConflictError, InvalidInputError, ManifestError, NotFoundError
from aurora_operator.adapters.kubernetes import Json, KubernetesApi
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.commands import ordered
from aurora_operator.cluster.directory import Directory, Tracked
from aurora_operator.cluster.event_recorder import EventRecorder, notices
from aurora_operator.cluster.fleet import PodFleet
from aurora_operator.cluster.kinds import DEPLOYMENT, POD, Key
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.status_store import ApiStatusStore, status_of
from aurora_operator.cluster.trainer_link import TrainerLink
from aurora_operator.domain.manifest.parser import deployment_from_object
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.condition import conditions
from aurora_operator.domain.plan.initial import initial_draft
from aurora_operator.domain.plan.observation import ComponentView, Observation, Problem, Scale
from aurora_operator.domain.status.deployment import Candidate, Status
from aurora_operator.reconcile.reconciler import Generation, Reconciler

# While something is under way that no event tells of.
_LIVE_SECONDS = 1.0
# While pods are not what they should be: why may come to light without an event of theirs. Each
# look that finds nothing new doubles the wait.
_FIRST_PATIENCE_SECONDS = 10.0
_LAST_PATIENCE_SECONDS = 320.0
# Conditions by which the objects' worker speaks.
_OBJECT_REASONS = frozenset({"NameTaken", "ApplyRefused", "InvalidSpec"})


class Workloads(Protocol):
    """How the components are, by what the API server says of their workloads and pods."""

    async def __call__(
        self, key: Key, deployment: AuroraDeployment, pods: Sequence[Json]
    ) -> tuple[tuple[ComponentView, ...], Scale | None]: ...


@dataclass(slots=True)
class _Held:
    """What is kept between two looks at a deployment."""

    uid: str
    reconciler: Reconciler
    store: ApiStatusStore
    fleet: PodFleet
    trainer: TrainerLink
    patience_seconds: float = _FIRST_PATIENCE_SECONDS


class RolloutWork:
    """The worker of the rollouts' queue; `again` wants a deployment looked at once more."""

    def __init__(
        self,
        api: KubernetesApi,
        directory: Directory,
        children: ChildStore,
        *,
        workloads: Workloads,
        recorder: EventRecorder,
        metrics: Metrics,
        again: Callable[[Key], None],
    ) -> None:
        self._api = api
        self._directory = directory
        self._children = children
        self._workloads = workloads
        self._recorder = recorder
        self._metrics = metrics
        self._again = again
        self._held: dict[Key, _Held] = {}

    async def __call__(self, key: Key) -> float | None:
        tracked = self._directory.get(key)
        held = self._held.get(key)
        if held is not None and (tracked is None or tracked.uid != held.uid):
            del self._held[key]
            await _close(held)
        if tracked is None or "deletionTimestamp" in tracked.body["metadata"]:
            return None
        if tracked.problems is None and key not in self._held and not _is_live(tracked):
            # The objects' worker comes first, and calls: before it did, nothing is there to tell.
            return None
        try:
            return await self._look(tracked)
        except NotFoundError:
            # Deleted meanwhile; its event closes what is held.
            return None
        except ConflictError:
            # Whoever writes the status as well may do so again and again: not at once, then.
            await self._reload(tracked)
            raise

    async def close(self) -> None:
        """Ends every connection to pods."""
        held, self._held = self._held, {}
        for each in held.values():
            await _close(each)

    async def _look(self, tracked: Tracked) -> float | None:
        body = tracked.body
        held = self._held.get(tracked.key)
        if held is not None and held.store.version != tracked.known.version:
            # Another hand wrote it, or we did and the answer was lost, or only the spec changed.
            held.store.version = tracked.known.version
            held.reconciler.status = status_of(body)
        try:
            if held is None:
                held = self._held[tracked.key] = self._hold(tracked, body)
            elif held.reconciler.generation.number != body["metadata"]["generation"]:
                held.reconciler.generation = _generation(body)
        except (ValidationError, InvalidInputError) as error:
            await self._refuse(tracked, held, body, error)
            return None
        return await self._turn(tracked, held, body)

    async def _turn(self, tracked: Tracked, held: _Held, body: Json) -> float | None:
        generation = held.reconciler.generation
        deployment = generation.deployment
        secure = deployment.spec.security.tls.mode != "Disabled"
        pods = self._children.of_kind(tracked.key, POD.kind)
        await held.fleet.look(pods, tracked.identity, secure=secure)
        await held.trainer.follow(pods, tracked.identity, secure=secure)
        components, scale = await self._workloads(tracked.key, deployment, pods)
        before = held.reconciler.status
        problems = tracked.problems
        held.fleet.tell(components, scale, _told(before) if problems is None else problems)
        turn = await held.reconciler.turn(ordered(body))
        initial = "" if generation.initial is None else generation.initial.digest
        keep = deployment.spec.model_store.keep
        held.trainer.prune(keep, held.reconciler.status, initial)
        if turn.moved:
            return 0.0
        if turn.live:
            return _LIVE_SECONDS
        if held.reconciler.status != before:
            held.patience_seconds = _FIRST_PATIENCE_SECONDS
        if all(view.ready for view in components):
            return None
        patience = held.patience_seconds
        held.patience_seconds = min(_LAST_PATIENCE_SECONDS, 2 * patience)
        return patience

    def _hold(self, tracked: Tracked, body: Json) -> _Held:
        key = tracked.key
        fleet = PodFleet(key)
        store = self._store(tracked)
        reconciler = Reconciler(
            _generation(body),
            status_of(body),
            store=store,
            fleet=fleet,
            on_change=_nothing,
        )

        def offer(candidate: Candidate) -> None:
            reconciler.offer(candidate)
            self._again(key)

        trainer = TrainerLink(
            key, after_sequence=lambda: reconciler.status.queue.sequence, offer=offer
        )
        return _Held(tracked.uid, reconciler, store, fleet, trainer)

    def _store(self, tracked: Tracked) -> ApiStatusStore:
        key, uid = tracked.key, tracked.uid

        def written(before: Status, after: Status) -> None:
            self._recorder.record(key, uid, notices(before, after))

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
        self, tracked: Tracked, held: _Held | None, body: Json, error: Exception
    ) -> None:
        """Says in the conditions that the spec is none; what runs goes on as it is."""
        status = status_of(body)
        number = body["metadata"]["generation"]
        components = () if held is None else held.fleet.components()
        told = "; ".join(error.problems) if isinstance(error, ManifestError) else str(error)
        problems = tracked.problems or (Problem("InvalidSpec", told),)
        observed = Observation(
            generation=number,
            components=components,
            problems=problems,
            scale=None if held is None else held.fleet.scale(),
        )
        status = replace(status, observed_generation=number)
        status = replace(status, conditions=conditions(status, observed, now=datetime.now(UTC)))
        await self._store(tracked).save(status)

    async def _reload(self, tracked: Tracked) -> None:
        """Learns what the API server has, for the next look to take over."""
        key = tracked.key
        try:
            body = await self._api.get(DEPLOYMENT, key.namespace, key.name)
        except NotFoundError:
            self._directory.forget(key, tracked.uid)
            return
        self._directory.remember(body)


def _is_live(tracked: Tracked) -> bool:
    return status_of(tracked.body).live_rollout is not None


def _told(status: Status) -> tuple[Problem, ...]:
    """The objects' problems as another operator found them, until ours looked at them."""
    return tuple(
        Problem(condition.reason, condition.message)
        for condition in status.conditions
        if condition.type == "Degraded" and condition.reason in _OBJECT_REASONS
    )


def _generation(body: Json) -> Generation:
    deployment = deployment_from_object(body)
    initial = initial_draft(deployment)
    return Generation(body["metadata"]["generation"], deployment, initial)


async def _close(held: _Held) -> None:
    await held.reconciler.close()
    await held.trainer.close()
    await held.fleet.close()


def _nothing() -> None:
    """The status is its own notice: whoever wants it watches it."""
