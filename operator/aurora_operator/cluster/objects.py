"""Reconciles a deployment's objects: applies those that differ, removes those not wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from aurora_common.errors import AuroraError, ConflictError, ManifestError, NotFoundError
from aurora_operator.adapters.api_error import ApiRefusedError, KindNotServedError
from aurora_operator.adapters.kubernetes import FIELD_MANAGER, Json, KubernetesApi
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.credentials import Credentials, name_taken
from aurora_operator.cluster.directory import Directory, Tracked
from aurora_operator.cluster.engines import Engines
from aurora_operator.cluster.fleet import component_pods, is_run_by
from aurora_operator.cluster.kinds import (
    CERTIFICATE,
    CHILDREN,
    GROUP,
    POD,
    Key,
    Reference,
    reference,
)
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.volumes import Volumes, lasting_problems
from aurora_operator.domain.manifest.parser import deployment_from_object
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects import desired_objects
from aurora_operator.domain.objects.drift import needs_apply
from aurora_operator.domain.objects.setting import Setting
from aurora_operator.domain.objects.volume import growths, with_live_claims
from aurora_operator.domain.plan.observation import Problem

# Owns a Deployment's replicas while they are handed over to an autoscaler.
_REPLICAS_MANAGER = f"{FIELD_MANAGER}-handover"
_WORKLOADS = ("Deployment", "StatefulSet", GROUP.kind)
# Problems that a person has to solve are checked again: not all of what they depend on is watched.
_PROBLEM_SECONDS = 30.0
# While a suspended deployment's inference pods end: their events do not concern its objects.
_DRAIN_SECONDS = 1.0
# Of a reconcile, among a deployment's failures.
_FAILURE = "objects"


class ObjectReconciler:
    """`on_change` is called with each deployment whose problems or certificate changed."""

    def __init__(
        self,
        api: KubernetesApi,
        directory: Directory,
        children: ChildStore,
        *,
        setting: Setting,
        credentials: Credentials,
        engines: Engines,
        metrics: Metrics,
        on_change: Callable[[Key], None],
    ) -> None:
        self._api = api
        self._directory = directory
        self._children = children
        self._setting = setting
        self._credentials = credentials
        self._engines = engines
        self._volumes = Volumes(api, metrics)
        self._metrics = metrics
        self._on_change = on_change

    async def reconcile(self, key: Key) -> float | None:
        """Makes the objects match the deployment; the seconds until the next reconcile, if any.

        Raises the first retryable error, after all other objects were reconciled.
        """
        tracked = self._directory.get(key)
        if tracked is None:
            return None
        body = tracked.body
        generation = body["metadata"]["generation"]
        if "deletionTimestamp" in body["metadata"] or _is_settled(tracked, generation):
            return None
        changes = tracked.changes
        try:
            deployment = deployment_from_object(body)
        except ManifestError as error:
            self._set_problems(tracked, [Problem("InvalidSpec", "; ".join(error.problems))])
            return None
        identity = tracked.identity
        try:
            problems = await self._reconcile_all(tracked, deployment, generation)
        except Exception as error:
            # A bug is reported too.
            is_ours = isinstance(error, AuroraError)
            cause = str(error) if is_ours else f"the operator crashes: {type(error).__name__}"
            tracked.failures.failed(_FAILURE, cause)
            if lasting := tracked.failures.lasting().get(_FAILURE):
                self._set_problems(tracked, [Problem("ApplyRefused", lasting)])
            raise
        tracked.failures.succeeded(_FAILURE)
        problems += lasting_problems(tracked) + _excesses(deployment)
        self._set_problems(tracked, problems)
        if tracked.identity != identity:
            self._on_change(key)
        if not self._is_drained(key, deployment):
            return _DRAIN_SECONDS
        if problems or tracked.failures:
            return _PROBLEM_SECONDS
        if tracked.changes == changes:
            tracked.settled_generation = generation
        # The resync is in time for what is due later.
        seconds = tracked.certificates_due - time.monotonic()
        return seconds if seconds < _PROBLEM_SECONDS else None

    def _is_drained(self, key: Key, deployment: AuroraDeployment) -> bool:
        """Whether no inference pod of a suspended deployment is left."""
        if not deployment.spec.suspend:
            return True
        pods = self._children.of_kind(key, POD.kind)
        return not any(is_run_by(pod, key) for pod in component_pods(pods, "inference"))

    def _set_problems(self, tracked: Tracked, problems: list[Problem]) -> None:
        found = tuple(sorted(set(problems), key=lambda problem: (problem.reason, problem.message)))
        if found != tracked.problems:
            tracked.problems = found
            self._on_change(tracked.key)

    async def _reconcile_all(
        self, tracked: Tracked, deployment: AuroraDeployment, generation: int
    ) -> list[Problem]:
        followed = await self._engines.of(tracked, deployment)
        setting = replace(self._setting, owner_uid=tracked.uid)
        drained = self._is_drained(tracked.key, deployment)
        wanted = desired_objects(deployment, setting, followed.engines, drained=drained)
        known = self._children.places(tracked.key)
        # The objects of a new deployment are created without reading them first.
        is_new = tracked.problems is None and not known
        places = {reference(desired) for desired in wanted}
        surplus = [place for place in known if place.kind in CHILDREN and place not in places]
        workloads = [desired for desired in wanted if desired["kind"] in _WORKLOADS]
        others = [desired for desired in wanted if desired["kind"] not in _WORKLOADS]
        results = await asyncio.gather(
            self._credentials.reconcile(tracked, deployment, generation, is_new=is_new),
            *(self._reconcile_one(tracked, desired, is_new=is_new) for desired in others),
            *(self._remove(tracked, place) for place in surplus),
            return_exceptions=True,
        )
        if not _are_withheld(results):
            results += await asyncio.gather(
                *(self._reconcile_one(tracked, desired, is_new=is_new) for desired in workloads),
                return_exceptions=True,
            )
        _raise_first(result for result in results if isinstance(result, BaseException))
        issued, *found = results
        assert isinstance(issued, list)
        problems = [result for result in found if isinstance(result, Problem)]
        return issued + followed.problems + problems

    async def _reconcile_one(
        self, tracked: Tracked, desired: Json, *, is_new: bool
    ) -> Problem | None:
        """Applies one object if it differs; returns a problem that a retry would not solve."""
        place = reference(desired)
        try:
            if is_new and await self._created(tracked.key, desired):
                return None
            live = await self._live(tracked, place)
            if live is None:
                await self._apply(tracked.key, desired, None)
                return None
            if not tracked.owns(live):
                return name_taken(place)
            # An object that is being deleted is created again once it is gone.
            if "deletionTimestamp" in live["metadata"]:
                return None
            if needs_apply(kept := with_live_claims(desired, live), live):
                await self._apply(tracked.key, kept, live)
            return await self._volumes.enlarge(tracked, growths(desired, live))
        except KindNotServedError:
            return _not_served(place)
        except (ApiRefusedError, NotFoundError) as error:
            # NotFoundError: its namespace is gone.
            return Problem("ApplyRefused", f"{place}: {error}")

    async def _created(self, key: Key, desired: Json) -> bool:
        """Creates the object; False if it exists already."""
        try:
            answer = await self._api.apply_new(CHILDREN[desired["kind"]], desired)
        except ConflictError:
            return False
        self._metrics.writes.labels("apply").inc()
        self._children.remember(key, answer)
        return True

    async def _live(self, tracked: Tracked, place: Reference) -> Json | None:
        """The cached object if it is this deployment's, else the API server's.

        One of another owner is not cached, or it may have been deleted while no watch saw it.
        """
        cached = self._children.get(tracked.key, place)
        if cached is not None and tracked.owns(cached):
            return cached
        try:
            return await self._api.get(CHILDREN[place.kind], tracked.key.namespace, place.name)
        except NotFoundError:
            if cached is not None:
                self._children.forget(tracked.key, place, cached["metadata"]["uid"])
            return None

    async def _apply(self, key: Key, desired: Json, live: Json | None) -> None:
        kind = CHILDREN[desired["kind"]]
        if live is not None and kind.kind == "Deployment" and "replicas" not in desired["spec"]:
            # A field that its only manager gives up falls back to its default, which is 1 pod.
            await self._api.apply(kind, _replicas_only(live), manager=_REPLICAS_MANAGER)
            self._metrics.writes.labels("apply").inc()
        answer = await self._api.apply(kind, desired, manager=FIELD_MANAGER)
        self._metrics.writes.labels("apply").inc()
        self._children.remember(key, answer)

    async def _remove(self, tracked: Tracked, place: Reference) -> None:
        live = self._children.get(tracked.key, place)
        if live is None or not tracked.owns(live):
            return
        uid = live["metadata"]["uid"]
        try:
            await self._api.delete(CHILDREN[place.kind], tracked.key.namespace, place.name, uid)
        except ConflictError:
            # Another object of that name exists by now; its event enqueues the deployment again.
            return
        self._metrics.writes.labels("delete").inc()


def _are_withheld(results: Sequence[object]) -> bool:
    """Whether workloads must wait, given what came of the Secrets, the account and the others.

    Their pods would run as the account, or mount the Secrets, of whoever has those names.
    """
    issued, account, *_ = results
    problems = [*(issued if isinstance(issued, list) else []), *results]
    return (
        isinstance(issued, BaseException)
        or isinstance(account, BaseException)
        or any(isinstance(each, Problem) and each.reason == "NameTaken" for each in problems)
    )


def _not_served(place: Reference) -> Problem:
    """The problem of an object whose kind the cluster lacks."""
    if place.kind == CERTIFICATE.kind:
        message = "cert-manager is not installed: install it, or change spec.security.tls.mode"
        return Problem("CertificateNotIssued", message)
    if place.kind == GROUP.kind:
        message = "LeaderWorkerSet is not installed: install it, or set spec.engine.nodes to 1"
        return Problem("ApplyRefused", message)
    kind = CHILDREN[place.kind]
    return Problem(
        "ApplyRefused", f"{place}: the cluster has no kind {kind.api_version} {place.kind}"
    )


def _excesses(deployment: AuroraDeployment) -> list[Problem]:
    """What an earlier version admitted, and what is done instead."""
    buffer = deployment.spec.buffer
    if not buffer.excess:
        return []
    kept = f"{buffer.retained_bytes} bytes are kept, not {buffer.retention.max_bytes}"
    return [Problem("InvalidSpec", f"spec.buffer.retention.maxBytes: {kept}: {buffer.excess}")]


def _is_settled(tracked: Tracked, generation: int) -> bool:
    is_due = time.monotonic() >= tracked.certificates_due
    return tracked.settled_generation == generation and not is_due


def _replicas_only(live: Json) -> Json:
    metadata = live["metadata"]
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {"namespace": metadata["namespace"], "name": metadata["name"]},
        # An autoscaler ignores a workload of 0 replicas.
        "spec": {"replicas": live["spec"]["replicas"] or 1},
    }


def _raise_first(errors: Iterable[BaseException]) -> None:
    """Raises bugs before retryable errors."""
    found = sorted(errors, key=lambda error: isinstance(error, AuroraError))
    if found:
        raise found[0]
