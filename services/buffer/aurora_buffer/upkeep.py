"""Periodic work: trimming, heartbeats, and reclaiming the entries of dead consumers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aurora_buffer.stream import TrajectoryStream
from aurora_buffer.subscription import Subscription, Subscriptions
from aurora_common.errors import AuroraError, UnavailableError

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0


class Upkeep:
    """Keeps the stream within its bounds and every pending entry with a live consumer.

    An open subscription sends a heartbeat every second, however slowly its consumer reads or
    acknowledges, so only consumers without one can die. None is declared dead in the first
    `dead_after_seconds` of a connection to Redis: until then, a consumer may be silent only because
    Redis or this server was down.
    """

    def __init__(
        self,
        stream: TrajectoryStream,
        subscriptions: Subscriptions,
        *,
        dead_after_seconds: float,
        on_reachable: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._subscriptions = subscriptions
        self._dead_after_seconds = dead_after_seconds
        self._on_reachable = on_reachable
        self._reachable_since: float | None = None

    async def run(self) -> None:
        """Runs until cancelled; calls `on_reachable` when Redis is found or lost."""
        outage_logged = False
        while True:
            try:
                await self._work()
                outage_logged = False
            except UnavailableError as error:
                if not outage_logged:
                    logger.warning(
                        "Redis is unreachable; not serving until it is back",
                        extra={"fields": {"error": error}},
                    )
                    outage_logged = True
                await self._lost()
            except AuroraError:
                logger.exception("upkeep failed")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _work(self) -> None:
        live = self._subscriptions.live()
        await self._stream.touch((one.group, one.consumer) for one in live)
        now = asyncio.get_running_loop().time()
        if self._reachable_since is None:
            self._reachable_since = now
            logger.info("Redis is reachable")
            await self._on_reachable(True)
        await self._stream.trim()
        if now - self._reachable_since >= self._dead_after_seconds:
            for heir in {one.group: one for one in live}.values():
                await self._reclaim(heir)

    async def _lost(self) -> None:
        if self._reachable_since is not None:
            self._reachable_since = None
            await self._on_reachable(False)

    async def _reclaim(self, heir: Subscription) -> None:
        try:
            ids = await self._stream.reclaim(heir.group, heir.consumer, self._dead_after_seconds)
        except UnavailableError:
            heir.start_over()
            raise
        if ids:
            heir.claim(ids)
            logger.info(
                "reclaimed entries of dead consumers",
                extra={"fields": {"group": heir.group, "entries": len(ids)}},
            )
