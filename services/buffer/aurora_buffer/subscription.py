"""One consumer's subscription: its pending entries first, then new ones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice

from aurora_buffer.entry import StoredEntry, in_responses, read_count
from aurora_buffer.stream import TrajectoryStream
from aurora_common.errors import AuroraError, ConflictError, UnavailableError

DEFAULT_BATCH = 32
MAX_BATCH = 128

# Size limit of a response, unless a single entry is larger; well below gRPC's limit.
RESPONSE_BYTES = 8 << 20

# Poll interval for entries appended by other processes; this process' own are notified.
POLL_SECONDS = 0.25

FIRST_ID = "0-0"


class Subscription:
    """Delivers a group's entries to one consumer, at least once, until ended.

    Reads do not block in Redis: a blocked read whose caller is gone would still take the next
    entry, which then would be stuck until the consumer's next start.
    """

    def __init__(self, stream: TrajectoryStream, group: str, consumer: str, batch: int) -> None:
        self.group = group
        self.consumer = consumer
        self._stream = stream
        self._batch = min(batch or DEFAULT_BATCH, MAX_BATCH)
        self._count = read_count((), batch=self._batch, max_bytes=RESPONSE_BYTES)
        self._has_group = False
        # Entries up to this id were delivered by this subscription, except for claimed ones.
        self._delivered_through = FIRST_ID
        # Pending entries may exist that this subscription has not delivered: read those first.
        self._catching_up = True
        self._claimed: deque[str] = deque()
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()
        self._end: AuroraError | None = None

    def notify(self) -> None:
        """Signals that there may be new entries."""
        self._news.set()

    def claim(self, ids: Sequence[str]) -> None:
        """Also delivers these entries, which were claimed for this consumer."""
        self._claimed.extend(ids)
        self._news.set()

    def start_over(self) -> None:
        """Delivers all of the consumer's pending entries again."""
        self._delivered_through = FIRST_ID
        self._catching_up = True
        self._news.set()

    def end(self, reason: AuroraError) -> None:
        """Makes `batches` raise `reason` instead of continuing."""
        self._end = self._end or reason
        self._news.set()

    async def settled(self) -> None:
        """Returns once no read is in progress; after `end` there will be none."""
        async with self._reading:
            pass

    async def batches(self) -> AsyncIterator[Sequence[StoredEntry]]:
        """Entries as they arrive, in parts that fit a response; survives outages of Redis."""
        while True:
            self._news.clear()
            # Shielded: a cancelled read may still take entries, and the consumer's next
            # subscription could look for them before Redis has executed it.
            entries = await asyncio.shield(asyncio.ensure_future(self._read()))
            if self._end is not None:
                raise self._end
            for part in in_responses(entries, max_bytes=RESPONSE_BYTES):
                yield part
            if not entries:
                await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _read(self) -> Sequence[StoredEntry]:
        """The next entries; empty if there are none or Redis is unreachable."""
        async with self._reading:
            if self._end is not None:
                return ()
            try:
                entries = await self._next()
            except UnavailableError:
                # Redis may have delivered entries and only its answer been lost.
                self._catching_up = True
                return ()
            except AuroraError as error:
                if "NOGROUP" in str(error):
                    self._has_group = False
                else:
                    self._end = error
                return ()
        if entries:
            self._count = read_count(entries, batch=self._batch, max_bytes=RESPONSE_BYTES)
        return entries

    async def _next(self) -> Sequence[StoredEntry]:
        if not self._has_group:
            await self._stream.create_group(self.group)
            self._has_group = True
        while self._catching_up:
            entries, position = await self._stream.read_pending(
                self.group, self.consumer, self._delivered_through, self._count
            )
            if position is None:
                self._catching_up = False
            else:
                self._delivered_through = position
            if entries:
                return entries
        if self._claimed:
            ids = list(islice(self._claimed, self._count))
            entries = await self._stream.fetch(self.group, ids)
            for _ in ids:
                self._claimed.popleft()
            return entries
        entries = await self._stream.read_new(self.group, self.consumer, self._count)
        if entries:
            self._delivered_through = entries[-1].id
        return entries


class Subscriptions:
    """The live subscriptions of this process, one for each consumer of a group."""

    def __init__(self, stream: TrajectoryStream) -> None:
        self._stream = stream
        self._live: dict[tuple[str, str], Subscription] = {}
        self._closing: AuroraError | None = None

    async def open(self, group: str, consumer: str, batch: int) -> Subscription:
        """Opens a subscription, ending an older one of the same consumer."""
        if self._closing is not None:
            raise self._closing
        subscription = Subscription(self._stream, group, consumer, batch)
        older = self._live.get((group, consumer))
        self._live[group, consumer] = subscription
        if older is not None:
            older.end(ConflictError("the same consumer subscribed again"))
            try:
                await older.settled()
            except asyncio.CancelledError:
                # Left open, it would keep its consumer alive for ever.
                self.close(subscription)
                raise
        return subscription

    def close(self, subscription: Subscription) -> None:
        """Removes a subscription; its consumer keeps its pending entries."""
        key = (subscription.group, subscription.consumer)
        if self._live.get(key) is subscription:
            del self._live[key]

    def close_all(self) -> None:
        """Ends every subscription, because the server is stopping; no new one opens."""
        self._closing = UnavailableError("the buffer is stopping; subscribe again")
        for subscription in self._live.values():
            subscription.end(self._closing)

    def notify(self) -> None:
        """Signals every subscription that there may be new entries."""
        for subscription in self._live.values():
            subscription.notify()

    def live(self) -> tuple[Subscription, ...]:
        """The open subscriptions."""
        return tuple(self._live.values())
