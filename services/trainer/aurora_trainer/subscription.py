"""The trainer's client of the buffer: a subscription that survives outages, and acks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_common.grpc_server import MESSAGE_OPTIONS, RECONNECT_OPTIONS
from aurora_common.lasting import LastingFailures
from aurora_common.tls import CertificateFolder, Connection
from aurora_trainer.inbox import Inbox

logger = logging.getLogger(__name__)

GROUP = "trainer"
CONSUMER = "trainer-0"
_BATCH_ENTRIES = 32
_ACK_IDS = 500
_ACK_DEADLINE_SECONDS = 10.0
# A stream is reopened after this long, in case its connection died unnoticed.
_STREAM_DEADLINE_SECONDS = 600.0
_FIRST_RETRY_SECONDS = 0.2
_LONGEST_RETRY_SECONDS = 5.0
# Longer than from one failure to the next.
_QUIET_SECONDS = 30.0
_OPTIONS = (*MESSAGE_OPTIONS, *RECONNECT_OPTIONS)


class BufferSubscription:
    """Feeds an inbox and acknowledges durable entries; all on one event loop."""

    def __init__(
        self, address: str, inbox: Inbox, *, certificates: CertificateFolder | None = None
    ) -> None:
        self._address = address
        self._connection = Connection(address, certificates=certificates, options=_OPTIONS)
        self._inbox = inbox
        # A stream that is idle does not say that it was opened.
        self._failures = LastingFailures(quiet_seconds=_QUIET_SECONDS)
        self._durable: asyncio.Queue[str] = asyncio.Queue()

    @property
    def problem(self) -> str:
        """What has failed for a minute; empty if nothing."""
        return "; ".join(self._failures.lasting().values())

    def acknowledge(self, ids: Sequence[str]) -> None:
        """Queues these entries for acknowledgement."""
        for stream_id in ids:
            self._durable.put_nowait(stream_id)

    async def run(self) -> None:
        """Receives and acknowledges until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._acknowledge())

    async def flush(self) -> None:
        """Acknowledges what is still queued; raises AioRpcError."""
        while not self._durable.empty():
            await self._ack(self._waiting())

    async def close(self) -> None:
        await self._connection.close()

    async def _receive(self) -> None:
        retry = _Retry(self._address, self._failures, "trajectories cannot be read")
        request = buffer_pb2.SubscribeRequest(group=GROUP, consumer=CONSUMER, batch=_BATCH_ENTRIES)
        while True:
            try:
                async for response in self._stub().Subscribe(
                    request, timeout=_STREAM_DEADLINE_SECONDS
                ):
                    retry.reset()
                    await self._inbox.put(response.entries)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    await retry.wait("cannot read from the buffer; will retry", error)

    async def _acknowledge(self) -> None:
        retry = _Retry(self._address, self._failures, "trajectories cannot be acknowledged")
        while True:
            ids = [await self._durable.get(), *self._waiting(_ACK_IDS - 1)]
            try:
                await self._ack(ids)
                retry.reset()
            except asyncio.CancelledError:
                self.acknowledge(ids)
                raise
            except grpc.aio.AioRpcError as error:
                self.acknowledge(ids)
                await retry.wait("acknowledgement failed; will retry", error)

    async def _ack(self, ids: Sequence[str]) -> None:
        await self._stub().Ack(
            buffer_pb2.AckRequest(group=GROUP, ids=ids), timeout=_ACK_DEADLINE_SECONDS
        )

    def _stub(self) -> buffer_pb2_grpc.BufferStub:
        channel = self._connection.channel()
        return buffer_pb2_grpc.BufferStub(channel)  # type: ignore[no-untyped-call]  # generated

    def _waiting(self, limit: int = _ACK_IDS) -> list[str]:
        return [self._durable.get_nowait() for _ in range(min(limit, self._durable.qsize()))]


class _Retry:
    """Exponential backoff; logs the first failure in a row and then every eighth."""

    def __init__(self, address: str, lasting: LastingFailures, meaning: str) -> None:
        self._address = address
        self._lasting = lasting
        self._meaning = meaning
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0
        self._lasting.succeeded(self._meaning)

    async def wait(self, message: str, error: grpc.aio.AioRpcError) -> None:
        cause = f"{error.code().name}: {error.details()}"
        self._lasting.failed(self._meaning, f"{self._meaning}: the buffer answers {cause}")
        if self._failures % 8 == 0:
            logger.warning(
                message,
                extra={
                    "fields": {
                        "buffer": self._address,
                        "code": error.code().name,
                        "reason": error.details(),
                    }
                },
            )
        seconds = min(_FIRST_RETRY_SECONDS * 2**self._failures, _LONGEST_RETRY_SECONDS)
        self._failures = min(self._failures + 1, 64)
        await asyncio.sleep(seconds)
