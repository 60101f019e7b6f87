"""Notices deleted and changed Secrets without listing or watching any: asks for each by name."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from aurora_common.errors import AuroraError
from aurora_operator.adapters.kubernetes import KubernetesApi
from aurora_operator.cluster.directory import Directory, Tracked
from aurora_operator.cluster.kinds import SECRET, Key

logger = logging.getLogger(__name__)

# A request right after another costs less than half of one by itself.
_BURST = 10
_LONGEST_PAUSE_SECONDS = 8.0
# Up to so many deployments, all are looked at in a round of that length.
_FEW = 50
_ROUND_SECONDS = 6.0


def pause_seconds(deployments: int) -> float:
    """The pause after each burst: a round of 50 deployments or fewer takes 6 s.

    The more there are beyond, the longer it is, up to 8 s: the polls of many must cost little.
    """
    bursts, few = max(1, math.ceil(deployments / _BURST)), _FEW / _BURST
    return min(_LONGEST_PAUSE_SECONDS, _ROUND_SECONDS * max(1 / bursts, bursts / few**2))


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
            keys = list(self._directory)
            for start in range(0, max(1, len(keys)), _BURST):
                for key in keys[start : start + _BURST]:
                    await self._look_at(key)
                await asyncio.sleep(pause_seconds(len(keys)))

    async def _look_at(self, key: Key) -> None:
        tracked = self._directory.get(key)
        if tracked is not None and not await self._is_intact(tracked):
            tracked.certificates_due = 0.0
            self._on_change(key)

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
