"""Serves the HTTP application in this process's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from aurora_common.errors import UnavailableError
from aurora_common.port import listening
from aurora_inference.http.connection import KEEP_ALIVE_SECONDS, TimedConnection


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process, which must also stop the gRPC server and the engine."""
        yield


class HttpServer:
    """An HTTP server on one address that drains before it stops."""

    def __init__(self, app: FastAPI, *, host: str, port: int, drain_seconds: int) -> None:
        config = uvicorn.Config(
            app,
            http=TimedConnection,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
        )
        self._host = host
        self._port = port
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> int:
        """Binds and serves; returns the port. Raises UnavailableError if binding fails."""
        try:
            listener = listening(self._host, self._port)
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror or error}"
            ) from error
        port: int = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve([listener]), name="http")
        return port

    async def ended(self) -> None:
        """Waits for the end of serving; raises UnavailableError if it ended by itself."""
        assert self._task is not None
        # Its own end, not that of a caller that is cancelled.
        await asyncio.wait({self._task})
        error = self._task.exception()
        raise UnavailableError(f"the HTTP server ended: {error or 'for no known reason'}")

    async def stop(self) -> None:
        """Accepts no new connections, drains requests in flight, then aborts them."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
