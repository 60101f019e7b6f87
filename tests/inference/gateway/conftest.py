"""A real HTTP server behind a real proxy: it stands for HTTP, not for what vLLM does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
import pytest
from aiohttp import web

from aurora_common.port import free_port
from aurora_inference.gateway.engine_connection import EngineConnection, engine_session
from aurora_inference.gateway.ledger import Ledger
from aurora_inference.gateway.proxy import Behind, Proxy, ProxySettings
from aurora_inference.gateway.server import ProxyServer
from aurora_inference.settings import Address
from aurora_inference.slots.outcome_log import OutcomeLog

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    method: str
    raw_path: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Upstream:
    """Answers with `handler`, and keeps what it got; `left` is set when a client has gone."""

    handler: Handler
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.port = self.port or free_port()
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request._client_max_size = 1 << 30
        body = await request.read()
        headers = [(name.decode(), value.decode()) for name, value in request.raw_headers]
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        try:
            return await self.handler(request)
        except asyncio.CancelledError:
            self.left.set()
            raise


async def plain(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="plain")


def events(*parts: bytes, gate: asyncio.Event | None = None) -> Handler:
    """Streams parts one by one; before the last one it waits for `gate`."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for place, part in enumerate(parts, start=1):
            if gate is not None and place == len(parts):
                await gate.wait()
            await response.write(part)
        return response

    return handler


@dataclass
class Running:
    """A proxy in front of an upstream; `answers`: what it would record."""

    upstream: Upstream
    proxy: Proxy
    server: ProxyServer
    ledger: Ledger
    http: httpx2.AsyncClient
    port: int
    answers: list[tuple]
    problem: list[str]


@asynccontextmanager
async def proxied(
    handler: Handler = plain,
    *,
    tokens=None,
    drain_seconds: float = 5.0,
    engine_key: str = "",
    **settings,
) -> AsyncIterator[Running]:
    upstream = Upstream(handler)
    await upstream.start()
    ledger = Ledger(OutcomeLog("instance"))
    answers, problem = [], [""]

    async def metrics() -> bytes:
        return b"aurora_engine_up 1.0\n"

    async with engine_session() as session:
        engine = EngineConnection(session, upstream.url, engine_key)
        proxy = Proxy(engine, ProxySettings(**settings), ledger, tokens)
        server = ProxyServer(proxy, Address("127.0.0.1", 0), drain_seconds=drain_seconds)
        port = await server.start()
        proxy.open(
            Behind(
                base_models=frozenset({"tiny"}),
                problem=lambda: problem[0],
                metrics=metrics,
                on_answer=lambda *answer: answers.append(answer),
            )
        )
        http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
        try:
            async with http:
                yield Running(upstream, proxy, server, ledger, http, port, answers, problem)
        finally:
            await server.stop()
            await upstream.stop()


async def raw(port: int, request: bytes) -> bytes:
    """What a server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.fixture
async def running():
    async with proxied() as found:
        yield found
