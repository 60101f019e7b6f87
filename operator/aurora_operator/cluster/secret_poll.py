"""Notices deleted and changed Secrets without listing or watching any: asks for each by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aurora_common.errors import AuroraError
from aurora_operator.adapters.kubernetes import KubernetesApi
from aurora_operator.cluster.directory import Directory, Tracked
from aurora_operator.cluster.kinds import SECRET, Key

logger = logging.getLogger(__name__)

# Up to 20 deployments are looked at in 8 s; more take longer, since the polls of many must cost
# little. A request right after another costs less than half of one by itself.
_BURST = 10
_PAUSE_SECONDS = 4.0
_FEW = 100
_PAUSE_OF_MANY_SECONDS = 8.0


class SecretPoll:
    """Calls `on_change` with a deployment whose Secrets are not as they were left."""

    def __init__(
        self, api: KubernetesApi, directory: Directory, *, on_change: Callable[[Key], None]
    ) -> None:
        self._api = api
        self._directory = directory
        self._on_change = on_change

    async def run(self) -> None:
        """Goes round all deployments until cancelled."""
        while True:
            for number, key in enumerate(self._directory, 1):
                tracked = self._directory.get(key)
                if tracked is not None and not await self._is_intact(tracked):
                    tracked.certificates_due = 0.0
                    self._on_change(key)
                if number % _BURST == 0:
                    await asyncio.sleep(self._pause_seconds())
            await asyncio.sleep(_PAUSE_SECONDS)

    def _pause_seconds(self) -> float:
        return _PAUSE_SECONDS if len(self._directory) <= _FEW else _PAUSE_OF_MANY_SECONDS

    async def _is_intact(self, tracked: Tracked) -> bool:
        """Whether every Secret has the version that was left; True if that cannot be read."""
        expected = tracked.secrets
        try:
            found = await asyncio.gather(
                *(self._api.version(SECRET, tracked.key.namespace, name) for name in expected)
            )
        except AuroraError as error:
            fields = {"key": str(tracked.key), "reason": str(error)}
            logger.debug("secrets not read", extra={"fields": fields})
            return True
        # While they were read, they may have been written.
        return found == list(expected.values()) or tracked.secrets is not expected
