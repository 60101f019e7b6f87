"""Periodic work: checking Redis, trimming, heartbeats, and reclaiming dead consumers' entries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aurora_buffer import disk
from aurora_buffer.health_check import HealthCheck
from aurora_buffer.stream import TrajectoryStream
from aurora_buffer.subscription import Subscription, Subscriptions
from aurora_common.errors import AuroraError, ConflictError, OverloadedError, UnavailableError
from aurora_common.outage import Outage

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0


class Upkeep:
    """Keeps the stream within its bounds and every pending entry with a live consumer.

    An open subscription sends a heartbeat every second, however slowly its consumer reads or
    acknowledges, so only consumers without one can die. None is declared dead in the first
    `dead_after_seconds` after Redis was found able: until then, a consumer may be silent only
    because Redis or this server was down.
    """

    def __init__(
        self,
        stream: TrajectoryStream,
        subscriptions: Subscriptions,
        check: HealthCheck,
        *,
        redis_dir: Path | None,
        dead_after_seconds: float,
        on_able: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._subscriptions = subscriptions
        self._check = check
        self._redis_dir = redis_dir
        self._dead_after_seconds = dead_after_seconds
        self._on_able = on_able
        self._outage = Outage(logger)
        self._shortage = Outage(logger)
        self._able_since: float | None = None
        self._was_able = False

    async def run(self) -> None:
        """Runs until cancelled; calls `on_able` when Redis becomes able to serve, or unable.

        Raises ConflictError if it never was and needs another configuration.
        """
        await self._unable()
        while True:
            try:
                await self._round()
            except AuroraError as error:
                if isinstance(error, ConflictError) and not self._was_able:
                    raise
                self._outage.failed("not serving until Redis is able again", str(error))
                await self._unable()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _round(self) -> None:
        live = self._subscriptions.live()
        await self._heed_disk()
        # What a check writes would use up the rest of a full disk.
        if not self._stream.refusal or self._able_since is None:
            await self._checked()
        await self._stream.touch((one.group, one.consumer) for one in live)
        await self._stream.trim()
        now = asyncio.get_running_loop().time()
        if self._able_since is None:
            self._able_since, self._was_able = now, True
            self._outage.ended("Redis is able; serving")
            await self._on_able(True)
        if now - self._able_since >= self._dead_after_seconds:
            for heir in {one.group: one for one in live}.values():
                await self._reclaim(heir)

    async def _checked(self) -> None:
        try:
            await self._check.run()
        except OverloadedError:
            # Out of memory: only this helps.
            if self._redis_dir is None:
                await self._stream.trim()
                raise
            await self._shed()
            await self._check.run()
        if self._stream.lacks_memory and self._redis_dir is not None:
            await self._shed()

    async def _shed(self) -> None:
        """Makes room in the memory of a Redis that nobody else fills."""
        dropped = await self._stream.shed()
        self._stream.lacks_memory = False
        fields = {"entries": dropped}
        logger.warning("Redis is out of memory; dropped the oldest", extra={"fields": fields})

    async def _heed_disk(self) -> None:
        """Has appends refused while the disk is full."""
        if self._redis_dir is None:
            return
        before = self._stream.refusal
        found = await asyncio.to_thread(disk.room, self._redis_dir)
        self._stream.refusal = disk.shortage(found)
        if self._stream.refusal:
            self._shortage.failed("refusing trajectories", self._stream.refusal)
        elif before:
            self._shortage.ended("the disk has room again; storing trajectories")

    async def _unable(self) -> None:
        self._able_since = None
        await self._on_able(False)

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
