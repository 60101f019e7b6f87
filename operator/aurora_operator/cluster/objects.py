"""One look at a deployment's objects: what differs from what is wanted is applied, no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from aurora_common.errors import AuroraError, ConflictError, ManifestError, NotFoundError
from aurora_operator.adapters.kubernetes import (
    FIELD_MANAGER,
    ApiRefusedError,
    Json,
    KubernetesApi,
)
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.credentials import Credentials
from aurora_operator.cluster.directory import Directory, Tracked
from aurora_operator.cluster.kinds import CHILDREN, Key, Reference, is_owned_by, reference
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.manifest.parser import deployment_from_object
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.observation import Problem

# Owns a Deployment's replicas at the moment at which an autoscaler takes them over.
_REPLICAS_MANAGER = f"{FIELD_MANAGER}-handover"
# What a person has to put right is looked at again now and then: not all of it is watched.
_PROBLEM_SECONDS = 30.0


class Shape(Protocol):
    """What a deployment consists of."""

    def wanted(self, deployment: AuroraDeployment, uid: str) -> tuple[Json, ...]:
        """The objects that the deployment of that uid should have."""
        ...

    def differs(self, desired: Json, live: Json) -> bool:
        """Whether an object must be applied again."""
        ...


class ObjectWork:
    """The worker of the objects' queue."""

    def __init__(
        self,
        api: KubernetesApi,
        directory: Directory,
        children: ChildStore,
        *,
        shape: Shape,
        credentials: Credentials,
        metrics: Metrics,
        on_change: Callable[[Key], None],
    ) -> None:
        self._api = api
        self._directory = directory
        self._children = children
        self._shape = shape
        self._credentials = credentials
        self._metrics = metrics
        self._on_change = on_change

    async def __call__(self, key: Key) -> float | None:
        """Brings the objects to what the deployment says.

        Raises the first error that trying again may help against, once the rest was done.
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
            self._take(tracked, [Problem("InvalidSpec", "; ".join(error.problems))])
            return None
        identity = tracked.identity
        problems = await self._bring(tracked, deployment, generation)
        self._take(tracked, problems)
        if tracked.identity != identity:
            self._on_change(key)
        if problems:
            return _PROBLEM_SECONDS
        if tracked.changes == changes:
            tracked.settled_generation = generation
        # The round comes by for what is due later.
        seconds = tracked.certificates_due - time.monotonic()
        return seconds if seconds < _PROBLEM_SECONDS else None

    def _take(self, tracked: Tracked, problems: list[Problem]) -> None:
        found = tuple(sorted(problems, key=lambda problem: (problem.reason, problem.message)))
        if found != tracked.problems:
            tracked.problems = found
            self._on_change(tracked.key)

    async def _bring(
        self, tracked: Tracked, deployment: AuroraDeployment, generation: int
    ) -> list[Problem]:
        wanted = self._shape.wanted(deployment, tracked.uid)
        known = self._children.places(tracked.key)
        # At the first look at a deployment of which nothing is known nothing is asked for.
        is_new = tracked.problems is None and not known
        places = {reference(desired) for desired in wanted}
        surplus = [place for place in known if place.kind in CHILDREN and place not in places]
        results = await asyncio.gather(
            self._credentials.bring(tracked, deployment, generation, is_new=is_new),
            *(self._bring_one(tracked, desired, is_new=is_new) for desired in wanted),
            *(self._remove(tracked, place) for place in surplus),
            return_exceptions=True,
        )
        _raise_first(result for result in results if isinstance(result, BaseException))
        issued, *found = results
        assert isinstance(issued, list)
        return issued + [result for result in found if isinstance(result, Problem)]

    async def _bring_one(self, tracked: Tracked, desired: Json, *, is_new: bool) -> Problem | None:
        """Applies one object where that is needed; what cannot be helped here is a problem."""
        place = reference(desired)
        try:
            if is_new and await self._made(tracked.key, desired):
                return None
            live = await self._live(tracked.key, place)
            if live is not None:
                if not is_owned_by(live, tracked.uid):
                    return Problem(
                        "NameTaken",
                        f"{place} exists and does not belong to this deployment: "
                        "remove it, or give the deployment another name",
                    )
                # One that is being deleted is made anew once it is gone.
                is_leaving = "deletionTimestamp" in live["metadata"]
                if is_leaving or not self._shape.differs(desired, live):
                    return None
            await self._apply(tracked.key, desired, live)
        except ApiRefusedError as error:
            return Problem("ApplyRefused", f"{place}: {error}")
        except NotFoundError as error:
            # Its namespace or its kind is gone.
            return Problem("ApplyRefused", f"{place}: {error}")
        return None

    async def _made(self, key: Key, desired: Json) -> bool:
        """Makes the object, and whether there was none."""
        try:
            answer = await self._api.apply_new(CHILDREN[desired["kind"]], desired)
        except ConflictError:
            return False
        self._metrics.writes.labels("apply").inc()
        self._children.remember(key, answer)
        return True

    async def _live(self, key: Key, place: Reference) -> Json | None:
        """The object as it is known, else as the API server has it: it may be another's."""
        if (body := self._children.get(key, place)) is not None:
            return body
        try:
            return await self._api.get(CHILDREN[place.kind], key.namespace, place.name)
        except NotFoundError:
            return None

    async def _apply(self, key: Key, desired: Json, live: Json | None) -> None:
        kind = CHILDREN[desired["kind"]]
        if live is not None and kind.kind == "Deployment" and "replicas" not in desired["spec"]:
            # A field that its only owner gives up falls back to its default, which is 1 pod.
            await self._api.apply(kind, _replicas_only(live), manager=_REPLICAS_MANAGER)
            self._metrics.writes.labels("apply").inc()
        answer = await self._api.apply(kind, desired, manager=FIELD_MANAGER)
        self._metrics.writes.labels("apply").inc()
        self._children.remember(key, answer)

    async def _remove(self, tracked: Tracked, place: Reference) -> None:
        live = self._children.get(tracked.key, place)
        if live is None or not is_owned_by(live, tracked.uid):
            return
        uid = live["metadata"]["uid"]
        try:
            await self._api.delete(CHILDREN[place.kind], tracked.key.namespace, place.name, uid)
        except ConflictError:
            # Another of that name by now: its event brings us back.
            return
        self._metrics.writes.labels("delete").inc()


def _is_settled(tracked: Tracked, generation: int) -> bool:
    is_due = time.monotonic() >= tracked.certificates_due
    return tracked.settled_generation == generation and not is_due


def _replicas_only(live: Json) -> Json:
    metadata = live["metadata"]
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {"namespace": metadata["namespace"], "name": metadata["name"]},
        # An autoscaler leaves alone what has no pods.
        "spec": {"replicas": live["spec"]["replicas"] or 1},
    }


def _raise_first(errors: Iterable[BaseException]) -> None:
    """A fault of ours before what may be over in a moment."""
    found = sorted(errors, key=lambda error: isinstance(error, AuroraError))
    if found:
        raise found[0]
