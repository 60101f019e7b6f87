"""Serves the proxy over HTTP in this process's event loop."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from aiohttp import web

from aurora_common.errors import UnavailableError
from aurora_common.port import listening
from aurora_inference.gateway.proxy import Proxy
from aurora_inference.settings import Address

# aiohttp would log what malformed requests contain, which may be part of a prompt.
_SILENT = logging.Logger("silent", level=logging.CRITICAL + 1)
# Longer than clients keep idle connections: if the server closes one first, a request already on
# its way is lost. Also for a request's head.
_KEEP_ALIVE_SECONDS = 75.0
_HEADER_BYTES = 1 << 16
# For handlers that were cancelled.
_CANCEL_SECONDS = 1.0


class ProxyServer:
    """Serves clients; drains before it stops."""

    def __init__(self, proxy: Proxy, address: Address, *, drain_seconds: float) -> None:
        self._proxy = proxy
        self._address = address
        self._drain_seconds = drain_seconds
        self._runner: web.ServerRunner | None = None

    async def start(self) -> int:
        """Binds and serves; returns the port. Raises UnavailableError if binding fails."""
        self._runner, port = await _serving(
            self._address,
            web.Server(
                self._proxy.handle,
                # A client that disconnects ends its request in the engine.
                handler_cancellation=True,
                access_log=None,
                logger=_SILENT,
                auto_decompress=False,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            ),
        )
        return port

    async def drain(self) -> None:
        """Refuses new requests and waits, within the deadline, for those in flight."""
        self._proxy.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                await self._proxy.calls.wait_until_idle()

    async def stop(self) -> None:
        """Drains, then aborts what is left."""
        await self.drain()
        if self._runner is not None:
            await self._runner.cleanup()


class DrainServer:
    """Drains the clients' server when POST /drain asks for it, and answers once it is done.

    For the engine's container: it must end only when no request is left in it.
    """

    def __init__(self, clients: ProxyServer, address: Address) -> None:
        self._clients = clients
        self._address = address
        self._runner: web.ServerRunner | None = None

    async def start(self) -> int:
        """As `ProxyServer.start`."""
        server = web.Server(self._handle, access_log=None, logger=_SILENT)
        self._runner, port = await _serving(self._address, server)
        return port

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if (request.method, request.path) != ("POST", "/drain"):
            return web.Response(status=404)
        await self._clients.drain()
        return web.Response(text="drained\n")


async def _serving(address: Address, server: web.Server) -> tuple[web.ServerRunner, int]:
    try:
        listener = listening(address.host, address.port)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {address}: {error.strerror or error}") from error
    runner = web.ServerRunner(server, shutdown_timeout=_CANCEL_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    port: int = listener.getsockname()[1]
    return runner, port
