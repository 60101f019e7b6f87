"""Which namespaces this installation manages: a Lease in each, so that two never act in one.

The lease of `adapters.lease` decides between the replicas of one installation. Claims decide
between installations, which may be in different namespaces and see nothing else of each other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from aurora_common.errors import AuroraError
from aurora_operator.adapters.lease import Election, LeaseApi

logger = logging.getLogger(__name__)

CLAIM_NAME = "aurora-claim"

# Long, since each namespace costs a write in each period; a stopped operator releases its claims.
_DURATION_SECONDS = 120
_RENEW_SECONDS = 30.0
_LEAST_PACE_SECONDS = 0.02
_RETRY_SECONDS = 10.0


class Claims:
    """`holder` names the installation; `wanted` returns the namespaces that have deployments."""

    def __init__(
        self, api: LeaseApi, *, holder: str, wanted: Callable[[], Collection[str]]
    ) -> None:
        self._api = api
        self._holder = holder
        self._wanted = wanted
        self._elections: dict[str, Election] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._held: set[str] = set()
        # Other installations, by namespace, and when to ask again (monotonic).
        self._others: dict[str, str] = {}
        self._due: dict[str, float] = {}

    @property
    def others(self) -> dict[str, str]:
        """The installations that manage namespaces in this one's place, by namespace."""
        return dict(self._others)

    async def holds(self, namespace: str) -> bool:
        """Whether this installation manages the namespace, which it claims if nobody else does."""
        async with self._locks.setdefault(namespace, asyncio.Lock()):
            if namespace not in self._held and time.monotonic() >= self._due.get(namespace, 0.0):
                await self._attempt(namespace)
            return namespace in self._held

    async def run(self) -> None:
        """Renews the claims until cancelled, and releases those of namespaces without deployments.

        A claim that cannot be renewed is kept: whoever takes it over is noticed at the next try.
        """
        while True:
            pace = max(_LEAST_PACE_SECONDS, _RENEW_SECONDS / max(1, len(self._elections)))
            for namespace in tuple(self._elections):
                await asyncio.sleep(pace)
                async with self._locks[namespace]:
                    await self._renew(namespace)
            if not self._elections:
                await asyncio.sleep(_RENEW_SECONDS)

    async def release(self) -> None:
        """Releases every claim, for another installation to take at once; best effort."""
        held, self._held = self._held, set()
        await asyncio.gather(*(self._elections[namespace].release() for namespace in held))

    async def _renew(self, namespace: str) -> None:
        if namespace not in self._wanted():
            election = self._elections.pop(namespace)
            self._others.pop(namespace, None)
            self._due.pop(namespace, None)
            if namespace in self._held:
                self._held.remove(namespace)
                await election.release()
            return
        try:
            await self._attempt(namespace)
        except AuroraError as error:
            fields = {"namespace": namespace, "reason": str(error)}
            logger.warning("claim not renewed; will retry", extra={"fields": fields})

    async def _attempt(self, namespace: str) -> None:
        election = self._elections.get(namespace)
        if election is None:
            election = self._elections[namespace] = Election(
                self._api,
                namespace=namespace,
                name=CLAIM_NAME,
                identity=self._holder,
                duration_seconds=_DURATION_SECONDS,
            )
        if await election.attempt():
            self._held.add(namespace)
            if self._others.pop(namespace, None):
                logger.info("namespace taken over", extra={"fields": {"namespace": namespace}})
            return
        self._held.discard(namespace)
        self._due[namespace] = time.monotonic() + _RETRY_SECONDS
        if self._others.get(namespace) != election.holder:
            self._others[namespace] = election.holder
            fields = {"namespace": namespace, "operator": election.holder}
            logger.error("namespace is managed by another operator", extra={"fields": fields})
