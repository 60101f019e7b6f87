"""The state of a deployment's components, and its cause, by Events and claims of stuck pods."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from aurora_common.errors import AuroraError, NotFoundError
from aurora_operator.adapters.kubernetes import Json, Kind, KubernetesApi
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.fleet import component_pods, is_leaving, is_ready
from aurora_operator.cluster.kinds import AUTOSCALER, CLAIM, DEPLOYMENT, EVENT, Key, Reference
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.attached import ENGINE, engine_selector
from aurora_operator.domain.objects.autoscaler import autoscaler_cause
from aurora_operator.domain.objects.cause import EventsByObject, Surroundings, by_object
from aurora_operator.domain.objects.inference import inference_kind
from aurora_operator.domain.objects.metadata import selector
from aurora_operator.domain.objects.trainer import has_ranks
from aurora_operator.domain.objects.workload import (
    component_view,
    ending_view,
    scale,
    together,
)
from aurora_operator.domain.plan.observation import ComponentView, Scale

logger = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

# A younger object is simply starting.
_STARTING = timedelta(seconds=5)
# How long Events and claims are cached.
_FRESH_SECONDS = 10.0
# Not the operator's own, of which a namespace of many deployments has as many.
_WARNINGS = f"type=Warning,involvedObject.kind!={DEPLOYMENT.kind}"


class PodWorkloads:
    """Asks the API server only about stuck pods, and once for all deployments of a namespace."""

    def __init__(self, api: KubernetesApi, children: ChildStore) -> None:
        self._api = api
        self._children = children
        self._events: dict[str, tuple[float, EventsByObject]] = {}
        # Claims and autoscalers that were read, None for a missing one.
        self._read: dict[tuple[Kind, str, str], tuple[float, Json | None]] = {}
        # Since when a component of a deployment has had fewer pods than are wanted.
        self._missing: dict[Key, dict[str, datetime]] = {}

    async def __call__(
        self, key: Key, deployment: AuroraDeployment, pods: Sequence[Json]
    ) -> tuple[tuple[ComponentView, ...], Scale | None]:
        workloads = {
            component: self._children.get(key, Reference(kind, f"{key.name}-{component}"))
            for component, kind in _workload_kinds(deployment)
        }
        if (attach := deployment.spec.engine.attach) is not None:
            found = self._children.of_kind(key, "Deployment")
            gateways = [body for body in found if ENGINE in body["metadata"].get("labels", {})]
            workloads["inference"] = together(gateways)
        now = datetime.now(UTC)
        around = await self._surroundings(key, pods, workloads, now)
        seen = [
            _view(deployment, component, workload, component_pods(pods, component), around)
            for component, workload in workloads.items()
        ]
        views = [view for view in seen if view is not None]
        is_followed = attach is not None and not deployment.spec.suspend
        if is_followed and not any(view.name == "inference" for view in views):
            assert attach is not None
            message = f"no pod that runs has the labels {engine_selector(attach)}"
            views.append(ComponentView("inference", ready=False, failing=True, message=message))
        inference = workloads["inference"]
        counted = None
        if inference is not None:
            labels = selector(deployment, "inference")
            counted = scale(inference, component_pods(pods, "inference"), labels)
            if deployment.spec.inference.autoscaling is not None and not deployment.spec.suspend:
                counted = _with_ignored(counted, deployment.spec.replicas)
                if cause := await self._autoscaler_cause(key, now):
                    views = [_with_cause(view, cause) for view in views]
        return tuple(views), counted

    def forget(self, key: Key) -> None:
        self._missing.pop(key, None)

    async def _autoscaler_cause(self, key: Key, now: datetime) -> str:
        try:
            found = await self._get(AUTOSCALER, key.namespace, f"{key.name}-inference")
        except AuroraError as error:
            logger.warning("autoscaler not read", extra={"fields": {"reason": str(error)}})
            return ""
        return "" if found is None else autoscaler_cause(found, now)

    async def _surroundings(
        self,
        key: Key,
        pods: Sequence[Json],
        workloads: Mapping[str, Json | None],
        now: datetime,
    ) -> Surroundings:
        stuck = [
            pod for pod in pods if not is_ready(pod) and not is_leaving(pod) and _is_old(pod, now)
        ]
        missing = any(
            workload is not None
            and workload["spec"].get("replicas", 1) > workload.get("status", {}).get("replicas", 0)
            and _is_old(workload, now)
            for workload in workloads.values()
        )
        events = await self._events_of(key.namespace) if stuck or missing else {}
        unscheduled = [pod for pod in stuck if _is_unscheduled(pod)]
        names = {name for pod in unscheduled for name in _claim_names(pod)}
        claims = await self._claims_of(key.namespace, names)
        return Surroundings(now, claims, events, self._missing_since(key, pods, workloads, now))

    def _missing_since(
        self,
        key: Key,
        pods: Sequence[Json],
        workloads: Mapping[str, Json | None],
        now: datetime,
    ) -> Mapping[str, datetime]:
        before = self._missing.pop(key, {})
        missing = {
            component: before.get(component, now)
            for component, workload in workloads.items()
            if workload is not None
            and sum(not is_leaving(pod) for pod in component_pods(pods, component))
            < workload["spec"].get("replicas", 1)
        }
        if missing:
            self._missing[key] = missing
        return missing

    async def _events_of(self, namespace: str) -> EventsByObject:
        """The namespace's recent warnings; empty if they cannot be read."""
        nothing: EventsByObject = {}
        at, found = self._events.get(namespace, (0.0, nothing))
        now = time.monotonic()
        if now - at < _FRESH_SECONDS:
            return found
        # Concurrent callers of the namespace get the previous warnings.
        self._events = {**_fresh(self._events), namespace: (now, found)}
        try:
            found = by_object(await self._api.list(EVENT, namespace, fields=_WARNINGS))
        except AuroraError as error:
            logger.warning("events not read", extra={"fields": {"reason": str(error)}})
        self._events[namespace] = (time.monotonic(), found)
        return found

    async def _claims_of(self, namespace: str, names: Iterable[str]) -> dict[str, Json | None]:
        """The PersistentVolumeClaims, None for a missing one; unreadable ones are left out."""
        found = {}
        for name in names:
            try:
                found[name] = await self._get(CLAIM, namespace, name)
            except AuroraError as error:
                logger.warning("claim not read", extra={"fields": {"reason": str(error)}})
        return found

    async def _get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """The object, None if it is missing; read again after ten seconds."""
        place = (kind, namespace, name)
        self._read = _fresh(self._read)
        if place in self._read:
            return self._read[place][1]
        try:
            found = await self._api.get(kind, namespace, name)
        except NotFoundError:
            found = None
        self._read[place] = (time.monotonic(), found)
        return found


def _view(
    deployment: AuroraDeployment,
    component: str,
    workload: Json | None,
    pods: Sequence[Json],
    around: Surroundings,
) -> ComponentView | None:
    view = component_view(component, workload, pods, around)
    if view is None and deployment.spec.suspend:
        return ending_view(component, pods, around)
    return view


def _with_cause(view: ComponentView, cause: str) -> ComponentView:
    """The inference, failing for that cause if it has no other."""
    if view.name != "inference" or view.failing:
        return view
    return replace(view, failing=True, message=cause)


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
        ("inference", inference_kind(deployment)),
        ("buffer", "StatefulSet" if embedded else "Deployment"),
        ("trainer", "StatefulSet"),
    )
    return (*kinds, ("rank", "Deployment")) if has_ranks(deployment) else kinds


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
