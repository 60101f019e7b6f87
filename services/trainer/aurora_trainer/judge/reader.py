"""Reads recorded requests from the buffer, in order and apart from the trainer's own share."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from aurora.buffer.v1 import buffer_pb2
from aurora_common.tls import CertificateFolder
from aurora_trainer.buffer_client import BufferClient, Retry

_BATCH_ENTRIES = 32
_READ_DEADLINE_SECONDS = 10.0


class BufferReader:
    """A connection of its own, so that a page does not delay the trainer's trajectories."""

    def __init__(self, address: str, *, certificates: CertificateFolder | None = None) -> None:
        self._client = BufferClient(address, certificates=certificates)
        self._retry = Retry(self._client, "recorded requests cannot be read for the judge")

    @property
    def problem(self) -> str:
        """What has failed for a minute; empty if nothing."""
        return self._client.problem

    async def read(self, after: str) -> Sequence[buffer_pb2.Entry]:
        """Entries after a stream id, empty for the oldest; none at the end.

        None too if the buffer cannot be read, once it may be tried again.
        """
        request = buffer_pb2.ReadRequest(after=after, limit=_BATCH_ENTRIES)
        try:
            response = await self._client.stub().Read(request, timeout=_READ_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            await self._retry.wait("cannot read from the buffer for the judge; will retry", error)
            return ()
        self._retry.reset()
        entries: Sequence[buffer_pb2.Entry] = response.entries
        return entries

    async def close(self) -> None:
        await self._client.close()
