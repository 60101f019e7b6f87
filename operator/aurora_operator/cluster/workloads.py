"""The state of a deployment's components, and its cause, by Events and claims of stuck pods."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from aurora_common.errors import AuroraError, NotFoundError
from aurora_operator.adapters.kubernetes import Json, KubernetesApi
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.fleet import component_pods, is_leaving, is_ready
from aurora_operator.cluster.kinds import CLAIM, EVENT, Key, Reference
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.cause import Surroundings
from aurora_operator.domain.objects.trainer import has_gradient_pods
from aurora_operator.domain.objects.workload import component_view, scale
from aurora_operator.domain.plan.observation import ComponentView, Scale

logger = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

# A younger object is simply starting.
_STARTING = timedelta(seconds=5)
# How long Events and claims are cached.
_FRESH_SECONDS = 10.0


class PodWorkloads:
    """Asks the API server only about stuck pods, and once for all deployments of a namespace."""

    def __init__(self, api: KubernetesApi, children: ChildStore) -> None:
        self._api = api
        self._children = children
        self._events: dict[str, tuple[float, list[Json]]] = {}
        self._claims: dict[tuple[str, str], tuple[float, Json | None]] = {}

    async def __call__(
        self, key: Key, deployment: AuroraDeployment, pods: Sequence[Json]
    ) -> tuple[tuple[ComponentView, ...], Scale | None]:
        workloads = {
            component: self._children.get(key, Reference(kind, f"{key.name}-{component}"))
            for component, kind in _workload_kinds(deployment)
        }
        now = datetime.now(UTC)
        around = await self._surroundings(key, pods, list(workloads.values()), now)
        views = [
            component_view(component, workload, component_pods(pods, component), around)
            for component, workload in workloads.items()
        ]
        inference = workloads["inference"]
        counted = None
        if inference is not None:
            counted = scale(inference, component_pods(pods, "inference"))
            if deployment.spec.inference.autoscaling is not None:
                counted = _with_ignored(counted, deployment.spec.replicas)
        return tuple(view for view in views if view is not None), counted

    async def _surroundings(
        self, key: Key, pods: Sequence[Json], workloads: Sequence[Json | None], now: datetime
    ) -> Surroundings:
        stuck = [
            pod for pod in pods if not is_ready(pod) and not is_leaving(pod) and _is_old(pod, now)
        ]
        missing = any(
            workload is not None
            and workload["spec"].get("replicas", 1) > workload.get("status", {}).get("replicas", 0)
            and _is_old(workload, now)
            for workload in workloads
        )
        events = await self._events_of(key.namespace) if stuck or missing else []
        unscheduled = [pod for pod in stuck if _is_unscheduled(pod)]
        names = {name for pod in unscheduled for name in _claim_names(pod)}
        return Surroundings(now, await self._claims_of(key.namespace, names), events)

    async def _events_of(self, namespace: str) -> list[Json]:
        """The namespace's recent warnings; empty if they cannot be read."""
        at, found = self._events.get(namespace, (0.0, []))
        now = time.monotonic()
        if now - at < _FRESH_SECONDS:
            return found
        # Concurrent callers of the namespace get the previous warnings.
        self._events = {**_fresh(self._events), namespace: (now, found)}
        try:
            found = await self._api.list(EVENT, namespace, fields="type=Warning")
        except AuroraError as error:
            logger.warning("events not read", extra={"fields": {"reason": str(error)}})
        self._events[namespace] = (time.monotonic(), found)
        return found

    async def _claims_of(self, namespace: str, names: Iterable[str]) -> dict[str, Json | None]:
        """The PersistentVolumeClaims, None for a missing one; unreadable ones are left out."""
        found = {}
        for name in names:
            try:
                found[name] = await self._claim(namespace, name)
            except AuroraError as error:
                logger.warning("claim not read", extra={"fields": {"reason": str(error)}})
        return found

    async def _claim(self, namespace: str, name: str) -> Json | None:
        place = (namespace, name)
        self._claims = _fresh(self._claims)
        if place in self._claims:
            return self._claims[place][1]
        try:
            claim = await self._api.get(CLAIM, namespace, name)
        except NotFoundError:
            claim = None
        self._claims[place] = (time.monotonic(), claim)
        return claim


def _with_ignored(counted: Scale, replicas: int) -> Scale:
    """Notes what `kubectl scale` asked for in vain; 1, the default, may not have been asked for."""
    return counted if replicas in (1, counted.wanted) else replace(counted, ignored=replicas)


def _fresh(entries: Mapping[K, tuple[float, V]]) -> dict[K, tuple[float, V]]:
    """The entries that have not expired."""
    since = time.monotonic() - _FRESH_SECONDS
    return {place: entry for place, entry in entries.items() if entry[0] > since}


def _workload_kinds(deployment: AuroraDeployment) -> tuple[tuple[str, str], ...]:
    """Each component and the kind of its workload."""
    embedded = deployment.spec.buffer.embedded is not None
    kinds = (
        ("inference", "Deployment"),
        ("buffer", "StatefulSet" if embedded else "Deployment"),
        ("trainer", "StatefulSet"),
    )
    return (*kinds, ("gradient", "Deployment")) if has_gradient_pods(deployment) else kinds


def _is_old(body: Json, now: datetime) -> bool:
    created = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
    return now - created > _STARTING


def _is_unscheduled(pod: Json) -> bool:
    return any(
        condition["type"] == "PodScheduled" and condition["status"] == "False"
        for condition in pod.get("status", {}).get("conditions", ())
    )


def _claim_names(pod: Json) -> list[str]:
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod.get("spec", {}).get("volumes", ())
        if "persistentVolumeClaim" in volume
    ]
