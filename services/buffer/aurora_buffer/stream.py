"""The stream of trajectories in Redis: every command that the buffer sends."""

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
from aurora_buffer.connection import persistently, redis_errors
from aurora_buffer.entry import NewEntry, StoredEntry, stored_entry
from aurora_buffer.metrics import Metrics

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0

# Lua's stack bounds what one call can unpack; a call this large takes a few milliseconds.
SCRIPT_LIMIT = 1000

# No entry lies beyond it. (The very last id would not do: Redis takes it for ">", new entries.)
BEYOND_ALL_ID = f"{2**64 - 1}-{2**64 - 2}"

T = TypeVar("T")

Entries: TypeAlias = list[tuple[bytes, dict[bytes, bytes] | None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the stream keeps: the oldest entries go first.

    `max_bytes` counts tenants and trajectories. Bounded beats complete: an entry may go before
    every group has acknowledged it, which is counted (`trimmed_unacknowledged`).
    """

    max_bytes: int
    max_age_seconds: int


@dataclass(frozen=True, slots=True)
class GroupStats:
    """A consumer group: entries given out and not acknowledged, and entries not given out."""

    name: str
    consumers: int
    pending: int
    lag: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The stream as it is; `first_id` and `last_id` are empty without entries."""

    entries: int
    bytes: int
    appended_total: int
    first_id: str
    last_id: str
    groups: tuple[GroupStats, ...]


class TrajectoryStream:
    """The entries of one Redis stream with an exact account of their bytes.

    Beside the stream lies an index of sizes and tenants and a running total, changed together
    with it by scripts and transactions (scripts/index.lua has the layout), so they agree after
    any crash. Only this class writes to them. Methods raise UnavailableError where Redis cannot be
    reached.
    """

    def __init__(self, redis: Redis, name: str, bounds: Bounds, metrics: Metrics) -> None:
        self._redis = redis
        self._name = name
        # The braces keep all three in one slot of a Redis cluster.
        self._keys = (name, f"{{{name}}}:index", f"{{{name}}}:totals")
        self._bounds = bounds
        self._metrics = metrics
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
        return await self._persistently(lambda: script(self._keys, arguments), purpose)

    async def _persistently(self, operation: Callable[[], Awaitable[T]], purpose: str) -> T:
        return await persistently(operation, purpose=purpose, patience_seconds=PATIENCE_SECONDS)

    async def append(self, entries: Sequence[NewEntry]) -> str:
        """Stores all of `entries`, in order, or none; returns the last one's id.

        Then trims, so that the bound on bytes holds again once this returns. Where Redis stored
        them but its answer was lost they are stored once more: delivery is at least once anyway.
        """
        store = partial(self._appender.append, entries)
        appended = await self._persistently(store, "store trajectories")
        self._metrics.appended.inc(len(entries))
        self._metrics.stored_bytes.set(appended.stored_bytes)
        if appended.stored_bytes > self._bounds.max_bytes:
            await self.trim()
        return str(appended.last_id)

    async def trim(self) -> int:
        """Removes the oldest entries until both bounds hold; returns how many."""
        arguments = [self._bounds.max_bytes, self._bounds.max_age_seconds * 1000, SCRIPT_LIMIT]
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
        """Makes the group, which begins at the oldest entry; nothing where it exists."""
        with redis_errors("create a consumer group"):
            try:
                await self._redis.xgroup_create(self._name, group, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def read_new(self, group: str, consumer: str, count: int) -> list[StoredEntry]:
        """At most `count` entries that no consumer of the group had; they are then its pending.

        Never repeated here: where the answer is lost, `read_pending` finds the entries.
        """
        return await self._present(group, await self._read(group, consumer, ">", count))

    async def read_pending(
        self, group: str, consumer: str, after: str, count: int
    ) -> tuple[list[StoredEntry], str | None]:
        """At most `count` of the consumer's pending entries with ids beyond `after`.

        Returns them without those that are gone, and where to go on; None at the end.
        """
        answer = await self._read(group, consumer, after, count)
        position = answer[-1][0].decode() if answer else None
        return await self._present(group, answer), position

    async def _read(self, group: str, consumer: str, after: str, count: int) -> Entries:
        with redis_errors("deliver trajectories"):
            answer = await self._redis.xreadgroup(group, consumer, {self._name: after}, count)
        # One pair of name and entries for the one stream; its type covers other protocols too.
        streams = cast(list[tuple[bytes, Entries]], answer)
        return streams[0][1] if streams else []

    async def fetch(self, group: str, ids: Sequence[str]) -> list[StoredEntry]:
        """The entries of `ids`, in order, without those that are gone."""
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

    async def _present(self, group: str, answer: Entries) -> list[StoredEntry]:
        """The entries of an answer; those deleted meanwhile are acknowledged away."""
        entries = [(entry_id, stored_entry(entry_id, fields)) for entry_id, fields in answer]
        gone = [entry_id for entry_id, entry in entries if entry is None]
        if gone:
            with redis_errors("acknowledge deleted entries"):
                await self._redis.xack(self._name, group, *gone)
        return [entry for _, entry in entries if entry is not None]

    async def acknowledge(self, group: str, ids: Sequence[str]) -> int:
        """Marks entries as done for the group; returns how many of them were pending."""
        total = 0
        for start in range(0, len(ids), SCRIPT_LIMIT):
            acknowledge = partial(
                self._redis.xack, self._name, group, *ids[start : start + SCRIPT_LIMIT]
            )
            total += await self._persistently(acknowledge, "acknowledge entries")
        self._metrics.acknowledged.inc(total)
        return total

    async def touch(self, consumers: Iterable[tuple[str, str]]) -> None:
        """Gives a sign of life for each (group, consumer), by a read that finds nothing.

        A read of new entries is none on Redis 6.2 where it finds nothing.
        """
        with redis_errors("be reached"):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.ping()
            for group, consumer in consumers:
                pipeline.xreadgroup(group, consumer, {self._name: BEYOND_ALL_ID}, count=1)
            # A group that is gone fails its own read, and is made again by its subscription.
            answers = await pipeline.execute(raise_on_error=False)
            if isinstance(answers[0], Exception):
                raise answers[0]

    async def reclaim(self, group: str, heir: str, dead_after_seconds: float) -> list[str]:
        """Gives `heir` what consumers without a sign of life have pending; returns the ids.

        A consumer with nothing left is deleted from the group. Never repeated here: where the
        answer is lost, the ids are among what the heir has pending.
        """
        with redis_errors("reclaim entries"):
            claimed = await self._reclaim(
                self._keys, [group, heir, int(dead_after_seconds * 1000), SCRIPT_LIMIT]
            )
        self._metrics.reclaimed.inc(len(claimed))
        return [entry_id.decode() for entry_id in claimed]

    async def delete_tenant(self, tenant: str) -> int:
        """Removes every entry of `tenant`, in bounded steps; returns how many.

        Then has Redis rewrite its append-only file, which still holds what was removed.
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
        """Counts the stream and its groups, all at one moment."""
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
            # Not allowed there, or one is under way: what is deleted goes with the next rewrite.
            logger.warning("append-only file not rewritten", extra={"fields": {"error": error}})
