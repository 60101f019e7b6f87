"""The trainer's client of the buffer: a subscription that survives outages, and acks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc

from aurora.buffer.v1 import buffer_pb2
from aurora_common.tls import CertificateFolder
from aurora_trainer.buffer_client import BufferClient, Retry
from aurora_trainer.inbox import Inbox

GROUP = "trainer"
CONSUMER = "trainer-0"
_BATCH_ENTRIES = 32
_ACK_IDS = 500
_ACK_DEADLINE_SECONDS = 10.0
# A stream is reopened after this long, in case its connection died unnoticed.
_STREAM_DEADLINE_SECONDS = 600.0


class BufferSubscription:
    """Feeds an inbox and acknowledges durable entries; all on one event loop."""

    def __init__(
        self, address: str, inbox: Inbox, *, certificates: CertificateFolder | None = None
    ) -> None:
        self._client = BufferClient(address, certificates=certificates)
        self._inbox = inbox
        self._durable: asyncio.Queue[str] = asyncio.Queue()

    @property
    def problem(self) -> str:
        """What has failed for a minute; empty if nothing."""
        return self._client.problem

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
        await self._client.close()

    async def _receive(self) -> None:
        retry = Retry(self._client, "trajectories cannot be read")
        request = buffer_pb2.SubscribeRequest(group=GROUP, consumer=CONSUMER, batch=_BATCH_ENTRIES)
        while True:
            try:
                async for response in self._client.stub().Subscribe(
                    request, timeout=_STREAM_DEADLINE_SECONDS
                ):
                    retry.reset()
                    await self._inbox.put(response.entries)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    await retry.wait("cannot read from the buffer; will retry", error)

    async def _acknowledge(self) -> None:
        retry = Retry(self._client, "trajectories cannot be acknowledged")
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
        await self._client.stub().Ack(
            buffer_pb2.AckRequest(group=GROUP, ids=ids), timeout=_ACK_DEADLINE_SECONDS
        )

    def _waiting(self, limit: int = _ACK_IDS) -> list[str]:
        return [self._durable.get_nowait() for _ in range(min(limit, self._durable.qsize()))]
