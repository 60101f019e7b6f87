"""The gRPC service in front of the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeAlias

import grpc

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_buffer.entry import StoredEntry, checked_id, checked_ids, checked_name, new_entries
from aurora_buffer.metrics import Metrics
from aurora_buffer.reading import entries_after
from aurora_buffer.stream import TrajectoryStream
from aurora_buffer.subscription import Subscriptions
from aurora_buffer.writer import Writer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class BufferServicer(buffer_pb2_grpc.BufferServicer):
    """aurora.buffer.v1.Buffer; raises AuroraErrors, which the server's interceptor maps."""

    def __init__(
        self, stream: TrajectoryStream, subscriptions: Subscriptions, metrics: Metrics
    ) -> None:
        self._stream = stream
        self._subscriptions = subscriptions
        self._metrics = metrics

    async def Append(  # noqa: N802 - the name in the protocol
        self, requests: AsyncIterator[buffer_pb2.AppendRequest], context: Context
    ) -> buffer_pb2.AppendResponse:
        """Stores while receiving; a failed call may have stored its first messages."""
        with self._metrics.counting_errors("Append"):
            appended = 0
            async with Writer(self._stream) as writer:
                async for request in requests:
                    entries = new_entries(request.trajectories)
                    appended += len(entries)
                    await writer.write(entries)
                last_id = await writer.finish()
            self._subscriptions.notify()
        return buffer_pb2.AppendResponse(appended=appended, last_id=last_id)

    async def Subscribe(  # noqa: N802 - the name in the protocol
        self, request: buffer_pb2.SubscribeRequest, context: Context
    ) -> AsyncIterator[buffer_pb2.SubscribeResponse]:
        with self._metrics.counting_errors("Subscribe"):
            subscription = await self._subscriptions.open(
                checked_name(request.group, what="group"),
                checked_name(request.consumer, what="consumer"),
                request.batch,
            )
            # The generator of a client that does not read is not resumed when the client goes.
            # (The stub declares a class instead of a function.)
            context.add_done_callback(
                lambda _: self._subscriptions.close(subscription)  # type: ignore[arg-type]
            )
            try:
                async for entries in subscription.batches():
                    self._metrics.delivered.inc(len(entries))
                    yield buffer_pb2.SubscribeResponse(entries=_messages(entries))
            finally:
                self._subscriptions.close(subscription)

    async def Ack(  # noqa: N802 - the name in the protocol
        self, request: buffer_pb2.AckRequest, context: Context
    ) -> buffer_pb2.AckResponse:
        with self._metrics.counting_errors("Ack"):
            group = checked_name(request.group, what="group")
            acked = await self._stream.acknowledge(group, checked_ids(request.ids))
        return buffer_pb2.AckResponse(acked=acked)

    async def Read(  # noqa: N802 - the name in the protocol
        self, request: buffer_pb2.ReadRequest, context: Context
    ) -> buffer_pb2.ReadResponse:
        with self._metrics.counting_errors("Read"):
            after = checked_id(request.after, what="after") if request.after else ""
            entries = await entries_after(self._stream, after, request.limit)
        return buffer_pb2.ReadResponse(entries=_messages(entries))

    async def GetStats(  # noqa: N802 - the name in the protocol
        self, request: buffer_pb2.GetStatsRequest, context: Context
    ) -> buffer_pb2.GetStatsResponse:
        with self._metrics.counting_errors("GetStats"):
            stats = await self._stream.stats()
        return buffer_pb2.GetStatsResponse(
            entries=stats.entries,
            bytes=stats.bytes,
            first_id=stats.first_id,
            last_id=stats.last_id,
            appended_total=stats.appended_total,
            groups=[
                buffer_pb2.Group(
                    name=group.name,
                    consumers=group.consumers,
                    pending=group.pending,
                    lag=group.lag,
                )
                for group in stats.groups
            ],
        )

    async def DeleteTenant(  # noqa: N802 - the name in the protocol
        self, request: buffer_pb2.DeleteTenantRequest, context: Context
    ) -> buffer_pb2.DeleteTenantResponse:
        with self._metrics.counting_errors("DeleteTenant"):
            tenant = checked_name(request.tenant, what="tenant")
            deleted = await self._stream.delete_tenant(tenant)
        return buffer_pb2.DeleteTenantResponse(deleted=deleted)


def _messages(entries: Sequence[StoredEntry]) -> Iterator[buffer_pb2.Entry]:
    for entry in entries:
        message = buffer_pb2.Entry(id=entry.id)
        message.trajectory.ParseFromString(entry.trajectory)
        yield message
