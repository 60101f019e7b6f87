"""Calls on an asyncio gRPC channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import grpc

from aurora_client._call import Call, RequestT, ResponseT, ResultT
from aurora_client._connection import Tls, call_metadata, channel_options, checked_address
from aurora_client._errors import (
    AuroraClientError,
    CallCancelledError,
    ClientClosedError,
    error_of,
)
from aurora_client._policy import Attempts, Retry


class AsyncChannel:
    """One server's connection, opened by the first call on that call's event loop.

    `jitter` returns a number in [0, 1) that spreads the pauses between attempts.
    """

    def __init__(
        self,
        address: str,
        *,
        retry: Retry,
        jitter: Callable[[], float],
        token: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.address = checked_address(address)
        self._retry = retry
        self._metadata = call_metadata(token)
        self._tls = tls
        self._jitter = jitter
        self._channel: grpc.aio.Channel | None = None
        self._is_closed = False

    async def close(self) -> None:
        """Cancels the calls in flight and closes the connection."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close(None)

    async def one(self, call: Call[RequestT, ResponseT, ResultT], seconds: float) -> ResultT:
        """The result of a unary call."""
        attempts = self._attempts(seconds)
        while True:
            method = self._open().unary_unary(
                call.path,
                request_serializer=call.request.__class__.SerializeToString,
                response_deserializer=call.response.FromString,
            )
            try:
                response = await method(
                    call.request,
                    timeout=attempts.remaining_seconds(time.monotonic()),
                    metadata=self._metadata,
                )
            except asyncio.CancelledError:
                self._raise_if_closed()
                raise
            except grpc.aio.AioRpcError as failure:
                await self._pause(attempts, self._error(failure), may_repeat=call.repeatable)
            else:
                return call.read(response)

    async def many(
        self, call: Call[RequestT, ResponseT, ResultT], seconds: float
    ) -> AsyncGenerator[ResultT, None]:
        """The results of a streaming call; retried only before the first of them."""
        attempts = self._attempts(seconds)
        while True:
            method = self._open().unary_stream(
                call.path,
                request_serializer=call.request.__class__.SerializeToString,
                response_deserializer=call.response.FromString,
            )
            running = method(
                call.request,
                timeout=attempts.remaining_seconds(time.monotonic()),
                metadata=self._metadata,
            )
            has_answered = False
            try:
                async for response in running:
                    has_answered = True
                    yield call.read(response)
                return
            except asyncio.CancelledError:
                self._raise_if_closed()
                raise
            except grpc.aio.AioRpcError as failure:
                error = self._error(failure)
            finally:
                running.cancel()
            await self._pause(attempts, error, may_repeat=call.repeatable and not has_answered)

    def _attempts(self, seconds: float) -> Attempts:
        return Attempts(self._retry, started_at=time.monotonic(), seconds=seconds)

    def _open(self) -> grpc.aio.Channel:
        if self._is_closed:
            raise ClientClosedError("the client is closed", address=self.address)
        # A channel belongs to the running loop, and a client may be built before one runs.
        if self._channel is None:
            options = channel_options(self.address)
            if self._tls is None:
                self._channel = grpc.aio.insecure_channel(self.address, options=options)
            else:
                credentials = grpc.ssl_channel_credentials(self._tls.authorities)
                self._channel = grpc.aio.secure_channel(self.address, credentials, options=options)
        return self._channel

    def _raise_if_closed(self) -> None:
        """Raises CallCancelledError if closing this channel cancelled the call.

        gRPC raises asyncio.CancelledError then, as if the caller's task had been cancelled.
        """
        task = asyncio.current_task()
        if self._is_closed and task is not None and not task.cancelling():
            raise CallCancelledError("the client was closed", address=self.address)

    def _error(self, failure: grpc.aio.AioRpcError) -> AuroraClientError:
        return error_of(failure.code(), failure.details() or "", address=self.address)

    async def _pause(
        self, attempts: Attempts, error: AuroraClientError, *, may_repeat: bool
    ) -> None:
        """Waits before the next attempt; raises `error` if there is none."""
        pause = attempts.pause_seconds(error, time.monotonic(), self._jitter())
        if pause is None or not may_repeat:
            raise error
        await asyncio.sleep(pause)
