"""The stream of trajectories in Redis, and every command that the buffer sends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, TypeAlias, TypeVar, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError, ResponseError

from aurora_buffer.appender import Appender
from aurora_buffer.connection import redis_errors, retried
from aurora_buffer.entry import NewEntry, StoredEntry, stored_entry
from aurora_buffer.entry_id import EntryId
from aurora_buffer.metrics import Metrics
from aurora_common.errors import OverloadedError

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0

# Lua's stack bounds what one call can unpack; a call this large takes a few milliseconds.
SCRIPT_LIMIT = 1000

# No entry lies beyond it. (The very last id would not do: Redis reads it as ">", new entries.)
BEYOND_ALL_ID = f"{2**64 - 1}-{2**64 - 2}"

# Redis refuses an interval that begins after it.
_LAST_ID = EntryId(2**64 - 1, 2**64 - 1)

T = TypeVar("T")

Entries: TypeAlias = list[tuple[bytes, dict[bytes, bytes] | None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the stream keeps; the oldest entries are dropped first.

    `max_bytes` counts tenants and trajectories. Being bounded beats being complete: entries that a
    group has not acknowledged may be dropped, which is counted (`trimmed_unacknowledged`).
    """

    max_bytes: int
    max_age_seconds: int


@dataclass(frozen=True, slots=True)
class GroupStats:
    """A consumer group: `pending` entries await acknowledgement, `lag` entries delivery."""

    name: str
    consumers: int
    pending: int
    lag: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of the stream; `first_id` and `last_id` are empty without entries."""

    entries: int
    bytes: int
    appended_total: int
    first_id: str
    last_id: str
    groups: tuple[GroupStats, ...]


class TrajectoryStream:
    """The entries of one Redis stream, with an exact account of their bytes.

    An index of sizes and tenants and a running total are updated together with the stream by
    scripts and transactions (scripts/index.lua has the layout), so they agree after any crash. Only
    this class writes to them. Methods raise UnavailableError if Redis is unreachable.
    """

    def __init__(
        self,
        redis: Redis,
        name: str,
        bounds: Bounds,
        metrics: Metrics,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._redis = redis
        self._patience_seconds = patience_seconds
        self._name = name
        # The braces keep all three keys in one slot of a Redis cluster.
        self._keys = (name, f"{{{name}}}:index", f"{{{name}}}:totals")
        self._bounds = bounds
        self._metrics = metrics
        # Why appends are refused; empty if they are not.
        self.refusal = ""
        # Whether Redis had no memory for the last append; a smaller one may still succeed.
        self.lacks_memory = False
        self._appender = Appender(redis, self._keys)
        self._trim = self._script("trim")
        self._delete_tenant = self._script("delete_tenant")
        self._reclaim = self._script("reclaim")
        self._stats = self._script("stats")

    def _script(self, name: str) -> AsyncScript:
        folder = files("aurora_buffer") / "scripts"
        source = (folder / "index.lua").read_text() + (folder / f"{name}.lua").read_text()
        return self._redis.register_script(source)

    async def _run(
        self, script: AsyncScript, arguments: Sequence[str | bytes | int], purpose: str
    ) -> Any:
        return await self._retried(lambda: script(self._keys, arguments), purpose)

    async def _retried(self, operation: Callable[[], Awaitable[T]], purpose: str) -> T:
        return await retried(operation, purpose=purpose, patience_seconds=self._patience_seconds)

    async def append(self, entries: Sequence[NewEntry]) -> str:
        """Stores all of `entries`, in order, or none; returns the last one's id.

        Then trims, so that the bound on bytes holds again once this returns. If Redis stored the
        entries but its answer was lost, they are stored again: delivery is at least once anyway.
        Raises OverloadedError while `refusal` says why.
        """
        if self.refusal:
            raise OverloadedError(f"trajectories are not stored: {self.refusal}")
        store = partial(self._appender.append, entries)
        try:
            appended = await self._retried(store, "store trajectories")
        except OverloadedError:
            self.lacks_memory = True
            raise
        self.lacks_memory = False
        self._metrics.appended.inc(len(entries))
        self._metrics.stored_bytes.set(appended.stored_bytes)
        if appended.stored_bytes > self._bounds.max_bytes:
            await self.trim()
        return str(appended.last_id)

    async def trim(self) -> int:
        """Removes the oldest entries until both bounds hold; returns how many."""
        return await self._trim_to(self._bounds.max_bytes)

    async def shed(self) -> int:
        """Removes the oldest entries, a tenth of all bytes at least; returns how many."""
        return await self._trim_to((await self.stats()).bytes * 9 // 10)

    async def _trim_to(self, max_bytes: int) -> int:
        arguments = [max_bytes, self._bounds.max_age_seconds * 1000, SCRIPT_LIMIT]
        total = 0
        while True:
            removed: int
            removed, unacknowledged, left_bytes = await self._run(
                self._trim, arguments, "trim the stream"
            )
            self._metrics.trimmed.inc(removed)
            self._metrics.trimmed_unacknowledged.inc(unacknowledged)
            self._metrics.stored_bytes.set(left_bytes)
            total += removed
            if removed < SCRIPT_LIMIT:
                return total

    async def create_group(self, group: str) -> None:
        """Creates the group at the oldest entry, unless it exists."""
        with redis_errors("create a consumer group"):
            try:
                await self._redis.xgroup_create(self._name, group, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def read_new(self, group: str, consumer: str, count: int) -> list[StoredEntry]:
        """At most `count` undelivered entries, which become pending for the consumer.

        Not retried: if the answer is lost, `read_pending` finds the entries.
        """
        return await self._present(group, await self._read(group, consumer, ">", count))

    async def read_pending(
        self, group: str, consumer: str, after: str, count: int
    ) -> tuple[list[StoredEntry], str | None]:
        """At most `count` of the consumer's pending entries beyond the id `after`.

        Returns those that still exist, and the id to continue from, None at the end.
        """
        answer = await self._read(group, consumer, after, count)
        position = answer[-1][0].decode() if answer else None
        return await self._present(group, answer), position

    async def _read(self, group: str, consumer: str, after: str, count: int) -> Entries:
        with redis_errors("deliver trajectories"):
            answer = await self._redis.xreadgroup(group, consumer, {self._name: after}, count)
        # One pair of name and entries for the one stream; its type also covers other protocols.
        streams = cast(list[tuple[bytes, Entries]], answer)
        return streams[0][1] if streams else []

    async def fetch(self, group: str, ids: Sequence[str]) -> list[StoredEntry]:
        """The entries of `ids` that still exist, in order."""
        with redis_errors("deliver trajectories"):
            pipeline = self._redis.pipeline(transaction=False)
            for entry_id in ids:
                pipeline.xrange(self._name, entry_id, entry_id)
            answers = await pipeline.execute()
        return await self._present(
            group,
            [
                answer[0] if answer else (entry_id.encode(), None)
                for entry_id, answer in zip(ids, answers, strict=True)
            ],
        )

    async def read_after(self, entry_id: str, count: int) -> tuple[list[StoredEntry], str | None]:
        """At most `count` entries beyond `entry_id` (empty: the oldest), whoever received them.

        Returns the id to continue from as well, None at the end of the stream.
        """
        if entry_id and EntryId.parsed(entry_id) >= _LAST_ID:
            return [], None
        oldest = f"({entry_id}" if entry_id else "-"
        read = partial(self._redis.xrange, self._name, oldest, count=count)
        answer = cast(Entries, await self._retried(read, "read trajectories"))
        entries = [stored_entry(*each) for each in answer]
        position = answer[-1][0].decode() if len(answer) == count else None
        return [entry for entry in entries if entry is not None], position

    async def _present(self, group: str, answer: Entries) -> list[StoredEntry]:
        """The entries of an answer; deleted ones are acknowledged and left out."""
        entries = [(entry_id, stored_entry(entry_id, fields)) for entry_id, fields in answer]
        gone = [entry_id for entry_id, entry in entries if entry is None]
        if gone:
            with redis_errors("acknowledge deleted entries"):
                await self._redis.xack(self._name, group, *gone)
        return [entry for _, entry in entries if entry is not None]

    async def acknowledge(self, group: str, ids: Sequence[str]) -> int:
        """Acknowledges entries for the group; returns how many were pending."""
        total = 0
        for start in range(0, len(ids), SCRIPT_LIMIT):
            acknowledge = partial(
                self._redis.xack, self._name, group, *ids[start : start + SCRIPT_LIMIT]
            )
            total += await self._retried(acknowledge, "acknowledge entries")
        self._metrics.acknowledged.inc(total)
        return total

    async def touch(self, consumers: Iterable[tuple[str, str]]) -> None:
        """Sends a heartbeat for each (group, consumer), as a read that finds nothing.

        Redis 6.2 does not count an empty read of new entries as activity.
        """
        with redis_errors("be reached"):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.ping()
            for group, consumer in consumers:
                pipeline.xreadgroup(group, consumer, {self._name: BEYOND_ALL_ID}, count=1)
            # A deleted group fails only its own read, and its subscription creates it again.
            answers = await pipeline.execute(raise_on_error=False)
            if isinstance(answers[0], Exception):
                raise answers[0]

    async def reclaim(self, group: str, heir: str, dead_after_seconds: float) -> list[str]:
        """Claims the pending entries of dead consumers for `heir`; returns the ids.

        Dead consumers with nothing left are deleted from the group. Not retried: if the answer is
        lost, the ids are pending for the heir.
        """
        with redis_errors("reclaim entries"):
            claimed = await self._reclaim(
                self._keys, [group, heir, int(dead_after_seconds * 1000), SCRIPT_LIMIT]
            )
        self._metrics.reclaimed.inc(len(claimed))
        return [entry_id.decode() for entry_id in claimed]

    async def delete_tenant(self, tenant: str) -> int:
        """Removes every entry of `tenant`, in bounded steps; returns how many.

        Then makes Redis rewrite its append-only file, which still holds them.
        """
        position = b""
        total = 0
        while True:
            deleted: int
            deleted, position, left_bytes = await self._run(
                self._delete_tenant, [tenant, position, SCRIPT_LIMIT], "delete a tenant"
            )
            total += deleted
            self._metrics.deleted.inc(deleted)
            self._metrics.stored_bytes.set(left_bytes)
            if not position:
                break
        if total:
            await self._rewrite_file()
        return total

    async def stats(self) -> Stats:
        """Counts the stream and its groups, atomically."""
        entries, size, appended, first, last, groups = await self._run(
            self._stats, [], "count the stream"
        )
        return Stats(
            entries=entries,
            bytes=size,
            appended_total=appended,
            first_id=first.decode(),
            last_id=last.decode(),
            groups=tuple(GroupStats(name.decode(), *counts) for name, *counts in groups),
        )

    async def _rewrite_file(self) -> None:
        try:
            await self._redis.bgrewriteaof()
        except RedisError as error:
            # Not permitted, or one is in progress: the next rewrite drops the deleted entries.
            logger.warning(
                "append-only file not rewritten; deleted entries stay in it until the next rewrite",
                extra={"fields": {"error": error}},
            )
