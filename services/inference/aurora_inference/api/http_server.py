"""Runs the HTTP application in this process's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from aurora_common.errors import UnavailableError

_BACKLOG = 1024
# Longer than clients keep idle connections, so that they, not the server, close them: a server
# that closes first loses the request that is on its way.
_KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the process, which also has a gRPC server and an engine to stop."""
        yield


class HttpServer:
    """An HTTP server on one address that drains before it stops."""

    def __init__(self, app: FastAPI, *, host: str, port: int, drain_seconds: int) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
        )
        self._host = host
        self._port = port
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> int:
        """Binds and serves; returns the port. Raises UnavailableError where it is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server(
                (self._host, self._port), family=family, backlog=_BACKLOG
            )
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror or error}"
            ) from error
        port: int = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve([listener]), name="http")
        return port

    async def stop(self) -> None:
        """Takes no new connection, waits for the requests in flight, then ends them."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
