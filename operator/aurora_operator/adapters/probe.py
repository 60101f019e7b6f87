"""Readiness probes: gRPC's health protocol, GET /health, and PING for Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurora_common.tls import NO_PROXY

# Reconnects within a second, instead of gRPC's two minutes.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    NO_PROXY,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcProbe:
    """Checks the health of one address over one connection."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def is_ready(self, timeout_seconds: float) -> bool:
        try:
            response = await self._health.Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_seconds
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        await self._channel.close(grace=None)


class HttpProbe:
    """Asks for /health at one address, HOST:PORT, and expects 200."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")

    async def is_ready(self, timeout_seconds: float) -> bool:
        request = f"GET /health HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n"
        opening = asyncio.open_connection(self._host, int(self._port))
        status = await _first_line(opening, request.encode(), timeout_seconds)
        return status.split()[1:2] == [b"200"]

    async def close(self) -> None:
        """Does nothing: each probe closes its connection."""


class RedisProbe:
    """Sends PING and expects PONG; a Redis that still loads its file is not ready."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def is_ready(self, timeout_seconds: float) -> bool:
        opening = asyncio.open_unix_connection(self._socket)
        return await _first_line(opening, b"PING\r\n", timeout_seconds) == b"+PONG\r\n"

    async def close(self) -> None:
        """Does nothing: each probe closes its connection."""


async def _first_line(
    opening: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    request: bytes,
    timeout_seconds: float,
) -> bytes:
    """Of the answer, on a connection of its own; empty if there is none in time."""
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await opening
            try:
                writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return b""
