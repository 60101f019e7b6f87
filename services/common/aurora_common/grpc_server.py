"""The gRPC server that every component runs: health, reflection, status codes, graceful drain."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from aurora_common.admission import Admission, everyone
from aurora_common.errors import AuroraError, UnavailableError
from aurora_common.grpc_reflection import add_reflection
from aurora_common.tls import CertificateFolder

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Prompts and distributions outgrow gRPC's 4 MiB.
MAX_MESSAGE_BYTES = 64 << 20
MESSAGE_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

# For clients: reconnect soon after a peer is back, not after up to two minutes as by default.
RECONNECT_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)

# Ends connections that do not begin with HTTP/2's settings, clients that vanished without closing,
# so that their streams end, and connections without calls.
CONNECTION_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 15 * 60_000),
    ("grpc.so_reuseport", 0),
)


# In which the last responses reach their clients.
_FLUSH_SECONDS = 0.2


class CallsInFlight:
    """Counts calls between `with` and its end."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self._count += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._idle.set()

    @property
    def count(self) -> int:
        return self._count

    @property
    def is_idle(self) -> bool:
        return self._count == 0

    async def wait_until_idle(self) -> None:
        await self._idle.wait()


class BoundaryInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Applies admission and maps errors to status codes.

    An AuroraError maps to its own code, anything else to INTERNAL without details.
    """

    def __init__(self, admit: Admission, calls: CallsInFlight) -> None:
        self._admit = admit
        self._calls = calls

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        kinds: tuple[tuple[str, Callable[..., Any], Callable[..., Any]], ...] = (
            ("unary_unary", _guarded, grpc.unary_unary_rpc_method_handler),
            ("stream_unary", _guarded, grpc.stream_unary_rpc_method_handler),
            ("unary_stream", _guarded_stream, grpc.unary_stream_rpc_method_handler),
            ("stream_stream", _guarded_stream, grpc.stream_stream_rpc_method_handler),
        )
        for kind, guard, rebuild in kinds:
            behaviour = getattr(handler, kind)
            # gRPC's own servicers are not coroutines and report their own errors.
            if behaviour is not None and not method.startswith("/grpc."):
                return rebuild(
                    guard(behaviour, method, self._admit, self._calls),
                    request_deserializer=handler.request_deserializer,
                    response_serializer=handler.response_serializer,
                )
        return handler


def _guarded(
    behaviour: Callable[..., Awaitable[Any]],
    method: str,
    admit: Admission,
    calls: CallsInFlight,
) -> Callable[..., Any]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            with calls:
                admit(method, context)
                return await behaviour(request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 - the request boundary
            await _abort(context, error, method)

    return call


def _guarded_stream(
    behaviour: Callable[..., AsyncIterator[Any]],
    method: str,
    admit: Admission,
    calls: CallsInFlight,
) -> Callable[..., Any]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            with calls:
                admit(method, context)
                async for response in behaviour(request, context):
                    yield response
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 - the request boundary
            await _abort(context, error, method)

    return call


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: str
) -> None:
    if isinstance(error, AuroraError):
        await context.abort(grpc.StatusCode[error.grpc_code], str(error))
    if isinstance(error, DecodeError):
        # Only for streams of requests; gRPC itself refuses an unparsable single one.
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be parsed")
    logger.exception("call failed", extra={"fields": {"method": method}}, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"internal error ({type(error).__name__})")


class GrpcServer:
    """A gRPC server on one address that reports its health and drains before it stops.

    With `certificates` it accepts mutual TLS only. `health_address` then serves the health service
    in plaintext, for a kubelet, whose probes present no certificate.
    """

    def __init__(
        self,
        address: str,
        *,
        drain_seconds: float = 10.0,
        admit: Admission = everyone,
        certificates: CertificateFolder | None = None,
        health_address: str | None = None,
    ) -> None:
        self._address = address
        self._drain_seconds = drain_seconds
        self._certificates = certificates
        self._calls = CallsInFlight()
        self._server = grpc.aio.server(
            interceptors=[BoundaryInterceptor(admit, self._calls)],
            options=[*MESSAGE_OPTIONS, *CONNECTION_OPTIONS],
        )
        self._health = HealthServicer()
        self._services: tuple[str, ...] = ()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._health_address = health_address
        self._health_server: grpc.aio.Server | None = None
        if health_address is not None:
            self._health_server = grpc.aio.server(options=CONNECTION_OPTIONS)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)

    def add(self, register: Callable[[Any, grpc.aio.Server], None], servicer: object) -> None:
        """Registers a servicer by its generated `add_…Servicer_to_server`."""
        register(servicer, self._server)

    async def start(self, services: Sequence[str], *, serving: bool = True) -> int:
        """Binds and serves; reports the health of `services` (full names); returns the port.

        Raises UnavailableError naming the address if it is taken.
        """
        health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        add_reflection(self._server, [*services, health])
        port = _bound(self._server, self._address, self._certificates)
        if self._health_server is not None and self._health_address is not None:
            _bound(self._health_server, self._health_address, None)
            await self._health_server.start()
        await self._server.start()
        self._services = ("", *services)
        await self.set_serving(serving)
        logger.info("listening", extra={"fields": {"address": self._address, "port": port}})
        return port

    async def set_serving(self, serving: bool) -> None:
        """Reports the services as SERVING or NOT_SERVING; calls are accepted either way."""
        response = health_pb2.HealthCheckResponse
        status = response.SERVING if serving else response.NOT_SERVING
        for service in self._services:
            await self._health.set(service, status)

    async def stop(self) -> None:
        """Reports NOT_SERVING, refuses new calls, drains those in flight, then stops."""
        await self._health.enter_graceful_shutdown()
        draining = asyncio.create_task(self._server.stop(self._drain_seconds))
        idle = asyncio.create_task(self._calls.wait_until_idle())
        await asyncio.wait((draining, idle), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        # Watches of the health and reflection streams last as long as their clients like.
        await asyncio.wait((draining,), timeout=_FLUSH_SECONDS)
        if self._calls.is_idle:
            await self._server.stop(None)
        await draining
        if self._health_server is not None:
            await self._health_server.stop(None)


def _bound(server: grpc.aio.Server, address: str, certificates: CertificateFolder | None) -> int:
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, certificates.server_credentials())
    except RuntimeError as error:
        raise UnavailableError(
            f"cannot listen on {address}: the port is taken or not allowed"
        ) from error


def stop_signal() -> asyncio.Event:
    """An event set by SIGTERM and SIGINT; call from the running loop."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    return event


async def unless_stopped(stop: asyncio.Event, task: asyncio.Task[T]) -> T | None:
    """The task's result; None if the stop signal comes first, which cancels it."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return await task
    task.cancel()
    return None
