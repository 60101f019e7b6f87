"""A connection to the buffer, and what is done while the buffer is away."""

from __future__ import annotations

import asyncio
import logging

import grpc

from aurora.buffer.v1 import buffer_pb2_grpc
from aurora_common.grpc_server import MESSAGE_OPTIONS, RECONNECT_OPTIONS
from aurora_common.lasting import LastingFailures
from aurora_common.tls import CertificateFolder, Connection

logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 0.2
_LONGEST_RETRY_SECONDS = 5.0
# Longer than from one failure to the next.
_QUIET_SECONDS = 30.0
_OPTIONS = (*MESSAGE_OPTIONS, *RECONNECT_OPTIONS)


class BufferClient:
    """Belongs to the event loop that first uses it."""

    def __init__(self, address: str, *, certificates: CertificateFolder | None = None) -> None:
        self.address = address
        # A stream that is idle does not say that it was opened.
        self.failures = LastingFailures(quiet_seconds=_QUIET_SECONDS)
        self._connection = Connection(address, certificates=certificates, options=_OPTIONS)

    @property
    def problem(self) -> str:
        """What has failed for a minute; empty if nothing."""
        return "; ".join(self.failures.lasting().values())

    def stub(self) -> buffer_pb2_grpc.BufferStub:
        """For a call that begins now; do not keep it."""
        channel = self._connection.channel()
        return buffer_pb2_grpc.BufferStub(channel)  # type: ignore[no-untyped-call]  # generated

    async def close(self) -> None:
        await self._connection.close()


class Retry:
    """Exponential backoff; logs the first failure in a row and then every eighth."""

    def __init__(self, client: BufferClient, meaning: str) -> None:
        self._client = client
        self._meaning = meaning
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0
        self._client.failures.succeeded(self._meaning)

    async def wait(self, message: str, error: grpc.aio.AioRpcError) -> None:
        cause = f"{error.code().name}: {error.details()}"
        self._client.failures.failed(self._meaning, f"{self._meaning}: the buffer answers {cause}")
        if self._failures % 8 == 0:
            logger.warning(
                message,
                extra={
                    "fields": {
                        "buffer": self._client.address,
                        "code": error.code().name,
                        "reason": error.details(),
                    }
                },
            )
        seconds = min(_FIRST_RETRY_SECONDS * 2**self._failures, _LONGEST_RETRY_SECONDS)
        self._failures = min(self._failures + 1, 64)
        await asyncio.sleep(seconds)
