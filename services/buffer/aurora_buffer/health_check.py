"""Does with a canary what the buffer is for, to find out whether Redis lets it."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from redis.asyncio import Redis

from aurora_buffer.connection import redis_errors
from aurora_buffer.entry import NewEntry
from aurora_buffer.metrics import Metrics
from aurora_buffer.requirement import unmet_requirement
from aurora_buffer.stream import Bounds, TrajectoryStream
from aurora_common.errors import AuroraError, ConflictError, UnavailableError

CHECK_SECONDS = 5.0

_NAME = "canary"
_ENTRY_BYTES = 32
# Several, so that buffers which share a Redis do not trim each other's before they are read.
_KEPT_ENTRIES = 16


class HealthCheck:
    """Stores, delivers, acknowledges and trims entries of a stream that no consumer reads."""

    def __init__(self, redis: Redis, stream: str) -> None:
        self._redis = redis
        self._canary = TrajectoryStream(
            redis,
            f"{stream}:canary",
            Bounds(max_bytes=_KEPT_ENTRIES * _ENTRY_BYTES, max_age_seconds=3600),
            Metrics(),
            patience_seconds=0.0,
        )
        self._passed = False

    async def run(self) -> None:
        """Returns if Redis can serve the buffer.

        Raises ConflictError if it never could as it is configured, another AuroraError if it cannot
        now; the next call connects anew, since the address may lead to another Redis by then.
        """
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._check()
        except (AuroraError, TimeoutError) as error:
            self._passed = False
            with suppress(Exception):
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            if isinstance(error, AuroraError):
                raise
            raise UnavailableError(
                f"Redis cannot store and deliver within {CHECK_SECONDS:.0f} s"
            ) from error
        self._passed = True

    async def _check(self) -> None:
        with redis_errors("be asked for its configuration"):
            info = await self._redis.info()
        if problem := unmet_requirement(info):
            raise ConflictError(problem)
        if not self._passed:
            await self._use_the_rest()
        entries = [_entry() for _ in range(1 if self._passed else _KEPT_ENTRIES + 1)]
        # Trims, since there are too many entries now.
        last_id = await self._canary.append(entries)
        delivered = await self._canary.read_new(_NAME, _NAME, 2 * _KEPT_ENTRIES)
        await self._canary.acknowledge(_NAME, [entry.id for entry in delivered])
        found = await self._canary.fetch(_NAME, [last_id])
        if [entry.trajectory for entry in found] != [entries[-1].trajectory]:
            raise UnavailableError("Redis lost an entry that it had just stored")

    async def _use_the_rest(self) -> None:
        """Runs the scripts that are needed seldom, in case the user may not."""
        await self._canary.create_group(_NAME)
        await self._canary.reclaim(_NAME, _NAME, CHECK_SECONDS)
        await self._canary.delete_tenant("")
        await self._canary.stats()


def _entry() -> NewEntry:
    return NewEntry(_NAME.encode(), secrets.token_bytes(_ENTRY_BYTES - len(_NAME)))
