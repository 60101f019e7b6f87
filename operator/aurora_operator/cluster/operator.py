"""What the leading operator does: it learns what there is, then watches, works and goes round."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from kubernetes.client import Configuration

from aurora_common.errors import AuroraError
from aurora_operator.adapters.kubernetes import Json, Kind, KubernetesApi
from aurora_operator.cluster.child_store import ChildStore, News
from aurora_operator.cluster.credentials import Credentials
from aurora_operator.cluster.directory import Directory
from aurora_operator.cluster.event_recorder import EventRecorder
from aurora_operator.cluster.handlers import Watches
from aurora_operator.cluster.kinds import (
    CERTIFICATE,
    DEPLOYMENT,
    POD,
    WATCHED,
    Key,
    owner,
    reference,
)
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.objects import ObjectWork, Shape
from aurora_operator.cluster.resync import Round
from aurora_operator.cluster.rollouts import RolloutWork
from aurora_operator.cluster.status_store import status_of
from aurora_operator.cluster.sweep import Sweep
from aurora_operator.cluster.work_queue import Workers
from aurora_operator.cluster.workloads import PodWorkloads

logger = logging.getLogger(__name__)

# Enough to keep the API's connections busy, few enough that each deployment is soon done.
_OBJECT_WORKERS = 16
# Most wait for an inference's answer, some for minutes.
_ROLLOUT_WORKERS = 512
_STALLED_SECONDS = 180.0
_RETRY_SECONDS = 2.0
_STOP_SECONDS = 3.0
# Events come in bursts, our own writes' among them: one look answers all of a burst.
_GATHER_SECONDS = 0.25
# A rollout is looked at once these are known, the objects once all are.
_FIRST = (DEPLOYMENT, POD, *(kind for kind in WATCHED if kind.api_version == "apps/v1"))
_REST = tuple(kind for kind in WATCHED if kind not in _FIRST)
_ALL = (*_FIRST, *_REST)

Work = Callable[[Key], Awaitable[float | None]]


class ClusterOperator:
    """Made inside the event loop that it uses; `run` once."""

    def __init__(
        self,
        configuration: Configuration,
        api: KubernetesApi,
        *,
        namespaces: Collection[str],
        shape: Shape,
        identity: str,
        metrics: Metrics,
    ) -> None:
        self._api = api
        self._metrics = metrics
        self._directory = Directory()
        self._children = ChildStore()
        self._recorder = EventRecorder(api, metrics, identity)
        self._work = RolloutWork(
            api,
            self._directory,
            self._children,
            workloads=PodWorkloads(api, self._children),
            recorder=self._recorder,
            metrics=metrics,
            again=lambda key: self._rollouts.add(key),
        )
        objects = ObjectWork(
            api,
            self._directory,
            self._children,
            shape=shape,
            credentials=Credentials(api, metrics),
            metrics=metrics,
            on_change=lambda key: self._rollouts.add(key),
        )
        self._objects = Workers("objects", self._timed("objects", objects), limit=_OBJECT_WORKERS)
        self._rollouts = Workers(
            "rollout", self._timed("rollout", self._work), limit=_ROLLOUT_WORKERS
        )
        self._round = Round(self._directory, look=self._look, pulse=self._pulse)
        self._sweep = Sweep(
            api,
            namespaces=namespaces,
            directory=self._directory,
            children=self._children,
            on_body=self._seen,
        )
        self._watches = Watches(configuration, _ALL, namespaces=namespaces, on_event=self._watched)
        self._loop = asyncio.get_running_loop()
        self.primed = False
        metrics.follow_deployments(lambda: len(self._directory))
        metrics.follow_queue("objects", lambda: len(self._objects.queue))
        metrics.follow_queue("rollout", lambda: len(self._rollouts.queue))

    @property
    def is_well(self) -> bool:
        """Whether what is due was taken up within the last three minutes; until all is listed the
        objects wait."""
        if not self.primed:
            return True
        least = time.monotonic() - _STALLED_SECONDS
        return min(self._objects.well_at, self._rollouts.well_at) > least

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recorder.run())
                group.create_task(self._round.run())
                while not await self._serves(DEPLOYMENT):
                    # It may be installed after us.
                    logger.warning("the AuroraDeployment definition is not installed yet")
                    await asyncio.sleep(_RETRY_SECONDS)
                for kind in _FIRST:
                    await self._prime(kind)
                group.create_task(self._rollouts.run())
                rest = _REST
                if await self._serves(CERTIFICATE):
                    rest = (*_REST, CERTIFICATE)
                for kind in rest:
                    await self._prime(kind)
                self.primed = True
                group.create_task(self._objects.run())
                self._watches.start()
                group.create_task(self._sweep.run((*_FIRST, *rest)))
        finally:
            self._watches.stop(_STOP_SECONDS)
            await self._work.close()

    async def _serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind, once it answers."""
        while True:
            try:
                return kind.plural in await self._api.served(kind.api_version)
            except AuroraError as error:
                logger.warning("waiting for the API", extra={"fields": {"reason": str(error)}})
            await asyncio.sleep(_RETRY_SECONDS)

    async def _prime(self, kind: Kind) -> None:
        while True:
            try:
                return await self._sweep.prime(kind)
            except AuroraError as error:
                fields = {"kind": kind.kind, "reason": str(error)}
                logger.warning("not listed yet", extra={"fields": fields})
            await asyncio.sleep(_RETRY_SECONDS)

    def _watched(self, gone: bool, body: Json) -> None:
        """In the watches' thread: children are packed there, all else is done in the loop."""
        if body["kind"] == DEPLOYMENT.kind:
            self._loop.call_soon_threadsafe(self._seen_deployment, gone, body)
        elif (key := owner(body)) is not None:
            news = self._take(key, gone, body)
            if news is not News.NONE:
                self._loop.call_soon_threadsafe(self._heard, key, body["kind"], news)

    def _seen(self, gone: bool, body: Json) -> None:
        if body["kind"] == DEPLOYMENT.kind:
            self._seen_deployment(gone, body)
        elif (key := owner(body)) is not None:
            self._heard(key, body["kind"], self._take(key, gone, body))

    def _take(self, key: Key, gone: bool, body: Json) -> News:
        if not gone:
            return self._children.remember(key, body)
        known = self._children.forget(key, reference(body), body["metadata"]["uid"])
        return News.ESSENCE if known else News.NONE

    def _seen_deployment(self, gone: bool, body: Json) -> None:
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        if gone:
            if self._directory.forget(key, metadata["uid"]):
                self._rollouts.add(key)
                self._objects.forget(key)
            return
        is_new = self._directory.get(key) is None
        # A status that changed is our own doing, or found when it is written next.
        if self._directory.remember(body) is News.ESSENCE:
            urgent = is_new and status_of(body).live_rollout is not None
            self._objects.add(key, urgent=urgent)
            self._rollouts.add(key, urgent=urgent)

    def _heard(self, key: Key, kind: str, news: News) -> None:
        """Something is new about a child or a pod."""
        tracked = self._directory.get(key)
        # Until all is listed, every deployment is in both queues by itself.
        if tracked is None or news is News.NONE or not self.primed:
            return
        if kind != POD.kind and news is News.ESSENCE:
            tracked.disturb()
            self._objects.add(key, after_seconds=_GATHER_SECONDS)
        self._rollouts.add(key, after_seconds=_GATHER_SECONDS)

    def _look(self, key: Key) -> None:
        self._objects.add(key)
        self._rollouts.add(key)

    def _pulse(self) -> None:
        self._objects.pulse()
        self._rollouts.pulse()

    def _timed(self, worker: str, work: Work) -> Work:
        async def timed(key: Key) -> float | None:
            began, result = time.monotonic(), "error"
            try:
                again = await work(key)
                result = "done"
                return again
            finally:
                seconds = time.monotonic() - began
                self._metrics.reconcile_seconds.labels(worker, result).observe(seconds)

        return timed
