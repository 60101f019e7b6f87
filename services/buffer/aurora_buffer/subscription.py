"""One consumer's subscription: what it has pending first, then what is new."""

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

# What one response carries at most, unless a single entry is larger; well below gRPC's limit.
RESPONSE_BYTES = 8 << 20

# Entries that another process appends are noticed by this poll; this process' own at once.
POLL_SECONDS = 0.25

FIRST_ID = "0-0"


class Subscription:
    """Delivers a group's entries to one consumer, at least once, until it is ended.

    Reads do not block in Redis: a blocked read whose caller is gone would still take the next
    entry, and nobody would have it until the consumer's next start.
    """

    def __init__(self, stream: TrajectoryStream, group: str, consumer: str, batch: int) -> None:
        self.group = group
        self.consumer = consumer
        self._stream = stream
        self._batch = min(batch or DEFAULT_BATCH, MAX_BATCH)
        self._count = read_count((), batch=self._batch, max_bytes=RESPONSE_BYTES)
        self._has_group = False
        # Entries up to here were delivered by this subscription, those claimed for it aside.
        self._delivered_through = FIRST_ID
        # Entries may be pending that this subscription did not get: read those first.
        self._catching_up = True
        self._claimed: deque[str] = deque()
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()
        self._end: AuroraError | None = None

    def notify(self) -> None:
        """There may be new entries."""
        self._news.set()

    def claim(self, ids: Sequence[str]) -> None:
        """Delivers entries too that were claimed for this consumer."""
        self._claimed.extend(ids)
        self._news.set()

    def start_over(self) -> None:
        """Delivers everything again that the consumer has pending."""
        self._delivered_through = FIRST_ID
        self._catching_up = True
        self._news.set()

    def end(self, reason: AuroraError) -> None:
        """Makes `batches` raise `reason` instead of reading on."""
        self._end = self._end or reason
        self._news.set()

    async def settled(self) -> None:
        """Returns once no read is under way; after `end` there will be none."""
        async with self._reading:
            pass

    async def batches(self) -> AsyncIterator[Sequence[StoredEntry]]:
        """Entries as they come, cut into what fits a response; lives on through Redis' absence."""
        while True:
            self._news.clear()
            # Shielded: a read that is cut off gives entries to nobody, and the consumer's next
            # subscription could look for them before Redis has carried it out.
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
        """The next entries; none where there are none or Redis is away."""
        async with self._reading:
            if self._end is not None:
                return ()
            try:
                entries = await self._next()
            except UnavailableError:
                # The answer may be lost after Redis gave the entries to this consumer.
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
        """A new subscription; one of the same consumer, left over by a lost connection, ends."""
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
                # Left open, it would keep its consumer from being declared dead for ever.
                self.close(subscription)
                raise
        return subscription

    def close(self, subscription: Subscription) -> None:
        """Forgets a subscription; its consumer keeps what it has pending."""
        key = (subscription.group, subscription.consumer)
        if self._live.get(key) is subscription:
            del self._live[key]

    def close_all(self) -> None:
        """Ends every subscription, for the server stops; no new one opens."""
        self._closing = UnavailableError("the buffer is stopping; subscribe again")
        for subscription in self._live.values():
            subscription.end(self._closing)

    def notify(self) -> None:
        """There may be new entries for everybody."""
        for subscription in self._live.values():
            subscription.notify()

    def live(self) -> tuple[Subscription, ...]:
        """Those open now."""
        return tuple(self._live.values())
