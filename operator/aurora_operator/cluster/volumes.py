"""Enlarges the claims of StatefulSets, if their storage classes allow that."""

from __future__ import annotations

from collections.abc import Sequence

from aurora_common.errors import NotFoundError
from aurora_operator.adapters.api_error import ApiRefusedError
from aurora_operator.adapters.kubernetes import KubernetesApi
from aurora_operator.cluster.directory import Tracked
from aurora_operator.cluster.kinds import CLAIM, owner
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.objects.volume import (
    Growth,
    grown,
    growth_cause,
    is_less,
    requested,
)
from aurora_operator.domain.plan.observation import Problem

# Among a deployment's failures.
_FAILURE = "volume"


class Volumes:
    """Claims are only read by name, and only if they should be larger than they were made."""

    def __init__(self, api: KubernetesApi, metrics: Metrics) -> None:
        self._api = api
        self._metrics = metrics

    async def enlarge(self, tracked: Tracked, growths: Sequence[Growth]) -> Problem | None:
        """Requests the larger sizes; returns why a claim cannot have its size.

        While it only does not have it yet, that is among the deployment's failures.
        """
        for growth in growths:
            try:
                cause = await self._cause(tracked, growth)
            except ApiRefusedError as error:
                tracked.failures.succeeded(_FAILURE)
                return _problem(_message(growth, str(error)))
            if cause:
                tracked.failures.failed(_FAILURE, _message(growth, cause))
            else:
                tracked.failures.succeeded(_FAILURE)
        return None

    async def _cause(self, tracked: Tracked, growth: Growth) -> str:
        """Why the claim does not have its size, once it is requested; empty if it has."""
        try:
            claim = await self._api.get(CLAIM, tracked.key.namespace, growth.claim)
        except NotFoundError:
            # It is about to be made, with the size of its template.
            return "it does not exist yet"
        if owner(claim) != tracked.key:
            raise ApiRefusedError("it does not belong to this deployment")
        if is_less(requested(claim), growth.storage):
            claim = await self._api.apply(CLAIM, grown(claim, growth.storage))
            self._metrics.writes.labels("apply").inc()
        return growth_cause(claim, growth.storage)


def lasting_problems(tracked: Tracked) -> list[Problem]:
    """What has kept claims from growing for a while."""
    found = tracked.failures.lasting()
    return [_problem(found[_FAILURE])] if _FAILURE in found else []


def _message(growth: Growth, cause: str) -> str:
    return f"{CLAIM.kind} {growth.claim} cannot be enlarged to {growth.storage}: {cause}"


def _problem(message: str) -> Problem:
    return Problem("VolumeNotEnlarged", message)
