"""Follows the pods of attached engines: without a label of Aurora's they are in no watch.

An engine has one draft, so it follows one deployment: of several that select it, the oldest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

from aurora_common.errors import AuroraError
from aurora_operator.adapters.kubernetes import Json, KubernetesApi
from aurora_operator.cluster.directory import Directory, Tracked
from aurora_operator.cluster.kinds import POD, Key
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.attached import Followed, engine_pods, engine_selector

logger = logging.getLogger(__name__)

# A new engine's gateway starts, and an ending one's stops, so much later at most.
_PAUSE_SECONDS = 3.0


class Engines:
    """Calls `on_change` with a deployment whose engines are not those that were read before."""

    def __init__(
        self, api: KubernetesApi, directory: Directory, *, on_change: Callable[[Key], None]
    ) -> None:
        self._api = api
        self._directory = directory
        self._on_change = on_change

    async def of(self, tracked: Tracked, deployment: AuroraDeployment) -> Followed:
        """The engines that a deployment is attached to, which are followed from now on."""
        attach = deployment.spec.engine.attach
        selector = "" if attach is None else engine_selector(attach)
        if tracked.engine_selector != selector:
            # Not before they are known: a gateway whose engine is not is removed.
            tracked.engines = await self._read(tracked, selector) if selector else Followed()
            tracked.engine_selector = selector
        return tracked.engines

    async def run(self) -> None:
        """Goes round the attached deployments until cancelled."""
        while True:
            for key in self._directory:
                tracked = self._directory.get(key)
                if tracked is not None and tracked.engine_selector:
                    await self._follow(tracked)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self, tracked: Tracked) -> None:
        selector = tracked.engine_selector
        try:
            found = await self._read(tracked, selector or "")
        except AuroraError as error:
            fields = {"key": str(tracked.key), "reason": str(error)}
            logger.warning("engines not read", extra={"fields": fields})
            return
        # While they were read, the manifest may have come to name others.
        if found != tracked.engines and selector == tracked.engine_selector:
            tracked.engines = found
            tracked.unsettle()
            self._on_change(tracked.key)

    async def _read(self, tracked: Tracked, selector: str) -> Followed:
        found = await self._api.list(POD, tracked.key.namespace, labels=selector)
        before = tuple(self._before(tracked))
        holders = {body["metadata"]["uid"]: _holder(body, before) for body in found}
        engines = engine_pods(found)
        return Followed(
            tuple(engine for engine in engines if not holders[engine.uid]),
            tuple((engine.name, name) for engine in engines if (name := holders[engine.uid])),
        )

    def _before(self, tracked: Tracked) -> Iterator[tuple[str, Mapping[str, str]]]:
        """The older attached deployments of the namespace, and the labels that each selects."""
        own = _age(tracked)
        for key in self._directory:
            other = self._directory.get(key)
            if other is None or other is tracked or key.namespace != tracked.key.namespace:
                continue
            # Once it was looked at, a body without attach need not be decoded again.
            if other.engine_selector != "" and _age(other) < own:
                attach = other.body["spec"].get("engine", {}).get("attach") or {}
                if attach.get("selector"):
                    yield key.name, attach["selector"]


def _holder(pod: Json, before: Iterable[tuple[str, Mapping[str, str]]]) -> str:
    """The first of these deployments that selects the pod; empty if none does."""
    labels = pod["metadata"].get("labels", {}).items()
    return next((name for name, wanted in before if wanted.items() <= labels), "")


def _age(tracked: Tracked) -> tuple[str, str]:
    """Sorts the oldest first."""
    return tracked.body["metadata"]["creationTimestamp"], tracked.key.name
