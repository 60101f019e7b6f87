"""What the leading operator does: primes the caches, then runs watches, workers and resync."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from kubernetes.client import Configuration

from aurora_common.errors import AuroraError
from aurora_operator.adapters.kubernetes import Json, Kind, KubernetesApi
from aurora_operator.adapters.webhook import Webhook
from aurora_operator.cluster.child_store import ChildStore, News
from aurora_operator.cluster.claims import Claims
from aurora_operator.cluster.credentials import Credentials
from aurora_operator.cluster.directory import Directory
from aurora_operator.cluster.engines import Engines
from aurora_operator.cluster.event_recorder import EventRecorder, Notice
from aurora_operator.cluster.kinds import (
    DEPLOYMENT,
    POD,
    POLLED,
    WATCHED,
    Key,
    owner,
    reference,
)
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.objects import ObjectReconciler
from aurora_operator.cluster.reflector import Reflector
from aurora_operator.cluster.rollouts import RolloutReconciler
from aurora_operator.cluster.secret_poll import SecretPoll
from aurora_operator.cluster.status_store import status_of
from aurora_operator.cluster.watch import Watches
from aurora_operator.cluster.work_queue import Workers
from aurora_operator.cluster.workloads import PodWorkloads
from aurora_operator.domain.objects.setting import Setting

logger = logging.getLogger(__name__)

# Enough to keep the API's connections busy, few enough that each deployment is soon done.
_OBJECT_WORKERS = 16
# Most wait for an inference's answer, some for minutes.
_ROLLOUT_WORKERS = 512
_STALLED_SECONDS = 180.0
_RETRY_SECONDS = 2.0
_STOP_SECONDS = 3.0
# Events come in bursts, some caused by our own writes: one reconcile answers a whole burst.
_GATHER_SECONDS = 0.25
# Of Certificates, whose kind may be missing: they are not watched.
_POLL_SECONDS = 8.0
# Until it is asked again whether another installation still manages a namespace.
_REFUSED_SECONDS = 15.0
_RESYNC_SECONDS = 600.0
_RESYNC_PACE_SECONDS = (0.05, 60.0)
# Rollouts are reconciled once these are known, objects once all are.
_FIRST = (DEPLOYMENT, POD, *(kind for kind in WATCHED if kind.api_version == "apps/v1"))
_REST = tuple(kind for kind in WATCHED if kind not in _FIRST)
_ALL = (*_FIRST, *_REST)

Work = Callable[[Key], Awaitable[float | None]]


class ClusterOperator:
    """Made inside the event loop that it uses; `run` once.

    `installation` is the same for all replicas of one operator, `identity` is this one's. `webhook`
    gets every verdict.
    """

    def __init__(
        self,
        configuration: Configuration,
        api: KubernetesApi,
        *,
        namespaces: Collection[str],
        setting: Setting,
        identity: str,
        installation: str,
        metrics: Metrics,
        webhook: Webhook | None = None,
    ) -> None:
        self._api = api
        self._installation = installation
        self._metrics = metrics
        self._directory = Directory()
        self._children = ChildStore()
        self._claims = Claims(api, holder=installation, wanted=self._directory.namespaces)
        # Other installations that an Event has named.
        self._named: set[str] = set()
        self._recorder = EventRecorder(api, metrics, identity)
        self._rollout_reconciler = RolloutReconciler(
            api,
            self._directory,
            self._children,
            workloads=PodWorkloads(api, self._children),
            recorder=self._recorder,
            metrics=metrics,
            webhook=webhook,
            enqueue=lambda key: self._rollouts.add(key),
        )
        self._engines = Engines(api, self._directory, on_change=lambda key: self._objects.add(key))
        object_reconciler = ObjectReconciler(
            api,
            self._directory,
            self._children,
            setting=setting,
            credentials=Credentials(api, metrics),
            engines=self._engines,
            metrics=metrics,
            on_change=lambda key: self._rollouts.add(key),
        )
        self._objects = Workers(
            "objects", self._timed("objects", object_reconciler.reconcile), limit=_OBJECT_WORKERS
        )
        self._rollouts = Workers(
            "rollout",
            self._timed("rollout", self._rollout_reconciler.reconcile),
            limit=_ROLLOUT_WORKERS,
        )
        self._reflector = Reflector(
            api,
            namespaces=namespaces,
            directory=self._directory,
            children=self._children,
            on_event=self._observe,
        )
        self._secret_poll = SecretPoll(
            api, self._directory, on_change=lambda key: self._objects.add(key)
        )
        self._watches = Watches(
            configuration,
            _ALL,
            namespaces=namespaces,
            on_event=self._observe,
            on_list=self._reflector.ask,
        )
        self.primed = False
        metrics.follow_deployments(self._directory.bodies)
        metrics.follow_queue("objects", lambda: len(self._objects.queue))
        metrics.follow_queue("rollout", lambda: len(self._rollouts.queue))

    @property
    def overlaps(self) -> dict[str, str]:
        """Other installations, by the namespace that they manage in place of this one."""
        return self._claims.others

    @property
    def is_well(self) -> bool:
        """Whether the workers made progress within the last three minutes, once all are primed."""
        if not self.primed:
            return True
        least = time.monotonic() - _STALLED_SECONDS
        return min(self._objects.progress_at, self._rollouts.progress_at) > least

    def heartbeat(self) -> None:
        """Call it every few seconds; `is_well` rests on it."""
        self._objects.heartbeat()
        self._rollouts.heartbeat()

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recorder.run())
                group.create_task(self._claims.run())
                group.create_task(self._resync())
                while not await self._serves(DEPLOYMENT):
                    # It may be installed later.
                    logger.warning("the AuroraDeployment definition is not installed yet")
                    await asyncio.sleep(_RETRY_SECONDS)
                for kind in _FIRST:
                    await self._prime(kind)
                group.create_task(self._rollouts.run())
                for kind in _REST:
                    await self._prime(kind)
                for kind in POLLED:
                    if await self._serves(kind):
                        await self._prime(kind)
                self.primed = True
                group.create_task(self._objects.run())
                self._watches.start()
                for kind in _ALL:
                    self._reflector.ask(kind.kind)
                group.create_task(self._reflector.run_asked(_ALL))
                group.create_task(self._reflector.run(_ALL))
                for kind in POLLED:
                    group.create_task(self._reflector.poll(kind, _POLL_SECONDS))
                group.create_task(self._secret_poll.run())
                group.create_task(self._engines.run())
        finally:
            self._watches.stop(_STOP_SECONDS)
            await self._rollout_reconciler.close()
            await self._claims.release()

    async def _serves(self, kind: Kind) -> bool:
        """Whether the API server serves the kind; retries until it answers."""
        while True:
            try:
                return kind.plural in await self._api.served(kind.api_version)
            except AuroraError as error:
                fields = {"reason": str(error)}
                logger.warning("waiting for the API server", extra={"fields": fields})
            await asyncio.sleep(_RETRY_SECONDS)

    async def _prime(self, kind: Kind) -> None:
        while True:
            try:
                return await self._reflector.prime(kind)
            except AuroraError as error:
                fields = {"kind": kind.kind, "reason": str(error)}
                logger.warning("list failed; will retry", extra={"fields": fields})
            await asyncio.sleep(_RETRY_SECONDS)

    async def _resync(self) -> None:
        """Enqueues one deployment after the other, evenly over ten minutes."""
        shortest, longest = _RESYNC_PACE_SECONDS
        while True:
            for key in self._directory:
                self._objects.add(key)
                self._rollouts.add(key)
                pace = _RESYNC_SECONDS / max(1, len(self._directory))
                await asyncio.sleep(min(longest, max(shortest, pace)))
            if not len(self._directory):
                await asyncio.sleep(longest)

    def _observe(self, deleted: bool, body: Json) -> None:
        """Stores what is new, and enqueues the deployment that it concerns."""
        if body["kind"] == DEPLOYMENT.kind:
            self._observe_deployment(deleted, body)
        elif (key := owner(body)) is not None:
            self._observe_child(key, deleted, body)

    def _observe_deployment(self, deleted: bool, body: Json) -> None:
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        if deleted:
            if self._directory.forget(key, metadata["uid"]):
                self._rollouts.add(key)
                self._objects.forget(key)
            return
        is_new = self._directory.get(key) is None
        # A changed status is our own write, or conflicts with our next one.
        if self._directory.remember(body) is News.ESSENCE:
            urgent = is_new and status_of(body).live_rollout is not None
            self._objects.add(key, urgent=urgent)
            self._rollouts.add(key, urgent=urgent)

    def _observe_child(self, key: Key, deleted: bool, body: Json) -> None:
        if not deleted:
            news = self._children.remember(key, body)
        elif self._children.forget(key, reference(body), body["metadata"]["uid"]):
            news = News.ESSENCE
        else:
            news = News.NONE
        tracked = self._directory.get(key)
        # While priming, every deployment is in both queues anyway.
        if tracked is None or news is News.NONE or not self.primed:
            return
        if body["kind"] != POD.kind and news is News.ESSENCE:
            tracked.unsettle()
            self._objects.add(key, after_seconds=_GATHER_SECONDS)
        self._rollouts.add(key, after_seconds=_GATHER_SECONDS)

    async def _acts(self, key: Key) -> bool:
        """Whether this installation manages the deployment; if not, an Event says so once."""
        tracked = self._directory.get(key)
        # Nothing is written for what is gone or going.
        if tracked is None or "deletionTimestamp" in tracked.body["metadata"]:
            return True
        if await self._claims.holds(key.namespace):
            return True
        other = self._claims.others.get(key.namespace, "")
        if other not in self._named:
            self._named.add(other)
            message = (
                f"namespace {key.namespace} is managed by the operator {other}: "
                f"{self._installation} does nothing in it; "
                "uninstall one of them, or give them disjoint watchNamespaces"
            )
            self._recorder.record(key, tracked.uid, [Notice("Warning", "OperatorOverlap", message)])
        return False

    def _timed(self, worker: str, work: Work) -> Work:
        async def timed(key: Key) -> float | None:
            began, result = time.monotonic(), "error"
            try:
                if not await self._acts(key):
                    return _REFUSED_SECONDS
                again = await work(key)
                result = "done"
                return again
            finally:
                seconds = time.monotonic() - began
                self._metrics.reconcile_seconds.labels(worker, result).observe(seconds)

        return timed
