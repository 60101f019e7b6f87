"""Calls on a blocking gRPC channel."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

import grpc

from aurora_client._call import Call, RequestT, ResponseT, ResultT
from aurora_client._connection import Tls, call_metadata, channel_options, checked_address
from aurora_client._errors import AuroraClientError, ClientClosedError, error_of
from aurora_client._policy import Attempts, Retry


class SyncChannel:
    """One server's connection, opened by the first call. Thread-safe.

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
        self._jitter = jitter
        options = channel_options(address)
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(tls.authorities)
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._is_closed = False

    def close(self) -> None:
        """Cancels the calls in flight and closes the connection."""
        self._is_closed = True
        self._channel.close()

    def one(self, call: Call[RequestT, ResponseT, ResultT], seconds: float) -> ResultT:
        """The result of a unary call."""
        attempts = self._attempts(seconds)
        while True:
            self._check_open()
            method = self._channel.unary_unary(
                call.path,
                request_serializer=call.request.__class__.SerializeToString,
                response_deserializer=call.response.FromString,
            )
            try:
                response = method(
                    call.request,
                    timeout=attempts.remaining_seconds(time.monotonic()),
                    metadata=self._metadata,
                )
            except grpc.RpcError as failure:
                self._pause(attempts, self._error(failure), may_repeat=call.repeatable)
            else:
                return call.read(response)

    def many(
        self, call: Call[RequestT, ResponseT, ResultT], seconds: float
    ) -> Generator[ResultT, None, None]:
        """The results of a streaming call; retried only before the first of them."""
        attempts = self._attempts(seconds)
        while True:
            self._check_open()
            method = self._channel.unary_stream(
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
                for response in running:
                    has_answered = True
                    yield call.read(response)
                return
            except grpc.RpcError as failure:
                error = self._error(failure)
            finally:
                running.cancel()  # type: ignore[no-untyped-call]
            self._pause(attempts, error, may_repeat=call.repeatable and not has_answered)

    def _attempts(self, seconds: float) -> Attempts:
        return Attempts(self._retry, started_at=time.monotonic(), seconds=seconds)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("the client is closed", address=self.address)

    def _error(self, failure: grpc.RpcError) -> AuroraClientError:
        return error_of(failure.code(), failure.details() or "", address=self.address)

    def _pause(self, attempts: Attempts, error: AuroraClientError, *, may_repeat: bool) -> None:
        """Waits before the next attempt; raises `error` if there is none."""
        pause = attempts.pause_seconds(error, time.monotonic(), self._jitter())
        if pause is None or not may_repeat:
            raise error
        time.sleep(pause)
