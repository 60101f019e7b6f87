"""Appends entries and accounts for them in one transaction, without passing them through Lua."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from aurora_buffer.clock import Reading
from aurora_buffer.connection import ANSWER_SECONDS
from aurora_buffer.entry import TENANT_FIELD, TRAJECTORY_FIELD, NewEntry
from aurora_buffer.entry_id import FIRST_ID, EntryId, ids_beyond


@dataclass(frozen=True, slots=True)
class Appended:
    """The id of the last entry appended, and the bytes of the whole stream after it."""

    last_id: EntryId
    stored_bytes: int


class Appender:
    """Appends to one stream, with ids that it derives from Redis' clock.

    A script receives sizes, tenants and ids, and counts the entries if their ids are beyond the
    newest; plain XADDs follow in the same transaction, which Redis accepts or refuses by the same
    rule. So both happen or neither does, and an append that lost a race with another buffer is
    retried. Passing a trajectory through a script would take Redis several times as long.
    """

    def __init__(self, redis: Redis, keys: tuple[str, str, str]) -> None:
        self._redis = redis
        self._keys = keys
        # Never EVALSHA: if Redis did not know the script, the XADDs would go uncounted.
        self._script = (files("aurora_buffer") / "scripts" / "append.lua").read_bytes()
        self._newest = FIRST_ID
        self._clock: Reading | None = None
        # Of two concurrent appends, one would arrive too late for its ids.
        self._turn = asyncio.Lock()

    async def append(self, entries: Sequence[NewEntry]) -> Appended:
        """Stores all of `entries` in order, or none; raises what redis-py raises."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._turn.acquire()
        try:
            while True:
                now = await self._now_milliseconds()
                ids = ids_beyond(self._newest, now_milliseconds=now, count=len(entries))
                stored, stored_bytes, newest, seconds, microseconds = await self._transaction(
                    ids, entries
                )
                self._newest = EntryId.parsed(newest.decode())
                self._clock = Reading(int(seconds) + int(microseconds) / 1e6, time.time())
                if stored:
                    return Appended(self._newest, stored_bytes)
        finally:
            self._turn.release()

    async def _now_milliseconds(self) -> int:
        if self._clock is not None:
            now = self._clock.redis_milliseconds(now_seconds=time.time())
            if now is not None:
                return now
        seconds, microseconds = await self._redis.time()
        return seconds * 1000 + microseconds // 1000

    async def _transaction(
        self, ids: Sequence[EntryId], entries: Sequence[NewEntry]
    ) -> Sequence[Any]:
        """The script's answer; raises its error, or the one that aborted the transaction."""
        # redis-py's own transactions quote commands, and with them content, in their errors.
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.execute_command("MULTI")
        pipeline.execute_command(
            *("EVAL", self._script, len(self._keys), *self._keys),
            *(sum(entry.size_bytes for entry in entries), str(ids[-1])),
            *(_member(*pair) for pair in zip(ids, entries, strict=True)),
        )
        for entry_id, entry in zip(ids, entries, strict=True):
            pipeline.execute_command(
                *("XADD", self._keys[0], str(entry_id)),
                *(TENANT_FIELD, entry.tenant, TRAJECTORY_FIELD, entry.trajectory),
            )
        pipeline.execute_command("EXEC")
        *queued, results = await pipeline.execute(raise_on_error=False)
        if isinstance(results, ResponseError):
            raise next((one for one in queued if isinstance(one, ResponseError)), results)
        if isinstance(results[0], ResponseError):
            # A script that failed has counted nothing, so nothing may stay.
            await self._redis.xdel(self._keys[0], *map(str, ids))
            raise results[0]
        return cast(Sequence[Any], results[0])


def _member(entry_id: EntryId, entry: NewEntry) -> bytes:
    return b"%b %d %b" % (entry_id.padded.encode(), entry.size_bytes, entry.tenant)
