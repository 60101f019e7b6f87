"""Follows the pods of attached engines: without a label of Aurora's they are in no watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aurora_common.errors import AuroraError
from aurora_operator.adapters.kubernetes import KubernetesApi
from aurora_operator.cluster.directory import Directory, Tracked
from aurora_operator.cluster.kinds import POD, Key
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.attached import EnginePod, engine_pods, engine_selector

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

    async def of(self, tracked: Tracked, deployment: AuroraDeployment) -> tuple[EnginePod, ...]:
        """The engines that a deployment is attached to, which are followed from now on."""
        attach = deployment.spec.engine.attach
        selector = "" if attach is None else engine_selector(attach)
        if tracked.engine_selector != selector:
            # Not before they are known: a gateway whose engine is not is removed.
            tracked.engines = await self._read(tracked.key, selector) if selector else ()
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
            found = await self._read(tracked.key, selector or "")
        except AuroraError as error:
            fields = {"key": str(tracked.key), "reason": str(error)}
            logger.warning("engines not read", extra={"fields": fields})
            return
        # While they were read, the manifest may have come to name others.
        if found != tracked.engines and selector == tracked.engine_selector:
            tracked.engines = found
            tracked.unsettle()
            self._on_change(tracked.key)

    async def _read(self, key: Key, selector: str) -> tuple[EnginePod, ...]:
        return engine_pods(await self._api.list(POD, key.namespace, labels=selector))
