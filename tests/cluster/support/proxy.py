"""A proxy in front of the API server that records writes and injects faults."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from support.api import LINE_BYTES
from support.background import Background
from support.control_plane import ApiServer
from yarl import URL

from aurora_common.port import free_port

_WRITES = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError"}
_HEADERS = ("Authorization", "Content-Type", "Accept", "User-Agent")
_REMEMBERED = 3
_EXPIRED = b'{"type": "ERROR", "object": {"kind": "Status", "code": 410}}\n'


class LostError(Exception):
    """Raised by a hook to break the connection; the request goes no further."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write through the proxy; those of the Lease are left out."""

    method: str
    path: str
    content: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        """The method, the plural and the subresource."""
        parts = self.path.split("/namespaces/")[-1].split("/")[1:]
        return " ".join((self.method, *parts[:1], *parts[2:]))


@dataclass(slots=True)
class ApiFaults:
    """Rates between 0 and 1, drawn from one seeded generator; the Lease is always spared.

    `refusals`: requests answered with an error status (409: writes alone) instead of being passed
    on. `lost`: writes whose answer is lost after they took effect. `stale`: reads answered with an
    earlier answer. `dropped`: watch events that are lost. `cut`: watch events after which the
    stream ends. `expired`: watches that are told to list again (410). `delay_seconds`: the longest
    delay of a watch event.
    """

    refusals: dict[int, float] = field(default_factory=dict)
    lost: float = 0.0
    stale: float = 0.0
    dropped: float = 0.0
    cut: float = 0.0
    expired: float = 0.0
    delay_seconds: float = 0.0


class FaultyProxy:
    """`hook` is called with each write right before it is passed on (True) and right after it took
    effect (False), in the proxy's thread; it may raise LostError. Methods: from any thread."""

    def __init__(self, server: ApiServer, *, seed: int = 0) -> None:
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        self.faults = ApiFaults()
        self.hook: Callable[[Write, bool], None] = _nothing
        self.writes: list[Write] = []
        # The count of each fault of `ApiFaults` that was injected.
        self.done: Counter[str] = Counter()
        self._server = server
        self._draw = random.Random(seed)
        self._answers: dict[str, list[bytes]] = {}
        self._background = Background("proxy")
        self._background.call(self._start(port))

    def reset(self) -> None:
        """Removes the faults and the hook."""
        self.faults, self.hook = ApiFaults(), _nothing
        self.done.clear()

    def close(self) -> None:
        self._background.call(self._stop())
        self._background.close()

    async def _start(self, port: int) -> None:
        upstream = ssl.create_default_context(cafile=str(self._server.authority))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=upstream, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=LINE_BYTES,
            auto_decompress=False,
        )
        application = web.Application(client_max_size=LINE_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._server.serving_certificate("proxy"))
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context).start()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        is_spared = "/leases" in request.path
        if not is_spared and (status := self._refusal(request.method)):
            return _refused(status)
        try:
            if request.query.get("watch") == "true":
                return await self._watch(request)
            if request.method in _WRITES and not is_spared:
                return await self._write(request)
            return await self._read(request, is_spared=is_spared)
        except (LostError, aiohttp.ClientError):
            return _broken(request)

    def _refusal(self, method: str) -> int | None:
        for status, rate in self.faults.refusals.items():
            if (status != 409 or method in _WRITES) and self._happens("refusals", rate):
                return status
        return None

    def _happens(self, fault: str, rate: float) -> bool:
        happens = self._draw.random() < rate
        self.done[fault] += happens
        return happens

    async def _write(self, request: web.Request) -> web.StreamResponse:
        write = Write(request.method, request.path, await request.read())
        # The number of a write is its position in this list, from 1.
        self.writes.append(write)
        self.hook(write, True)
        status, headers, content = await self._forward(request)
        self.hook(write, False)
        if self._happens("lost", self.faults.lost):
            raise LostError
        return web.Response(status=status, headers=headers, body=content)

    async def _read(self, request: web.Request, *, is_spared: bool) -> web.StreamResponse:
        status, headers, content = await self._forward(request)
        if status == 200 and not is_spared:
            known = self._answers.setdefault(str(request.rel_url), [])
            known.append(content)
            del known[:-_REMEMBERED]
            if known[0] != content and self._happens("stale", self.faults.stale):
                content = known[0]
        return web.Response(status=status, headers=headers, body=content)

    async def _forward(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        body = await request.read() or None
        async with self._session.request(
            request.method, self._upstream(request), data=body, headers=_passed(request)
        ) as response:
            kept = ("Content-Type", "Retry-After")
            headers = {name: response.headers[name] for name in kept if name in response.headers}
            return response.status, headers, await response.read()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self._happens("expired", self.faults.expired):
            return web.Response(body=_EXPIRED, content_type="application/json")
        async with self._session.get(self._upstream(request), headers=_passed(request)) as upstream:
            answer = web.StreamResponse(status=upstream.status)
            answer.content_type = "application/json"
            await answer.prepare(request)
            with suppress(ConnectionResetError):
                async for line in upstream.content:
                    if self.faults.delay_seconds:
                        await asyncio.sleep(self._draw.uniform(0, self.faults.delay_seconds))
                    if not self._happens("dropped", self.faults.dropped):
                        await answer.write(line)
                    if self._happens("cut", self.faults.cut):
                        break
            return answer

    def _upstream(self, request: web.Request) -> URL:
        return URL(f"{self._server.url}{request.raw_path}", encoded=True)


def _passed(request: web.Request) -> dict[str, str]:
    found = {name: request.headers[name] for name in _HEADERS if name in request.headers}
    return {**found, "Accept-Encoding": "identity"}


def _refused(status: int) -> web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": _REASONS[status],
        "message": "refused by the proxy",
        "code": status,
    }
    headers = {"Retry-After": "1"} if status == 429 else {}
    return web.json_response(body, status=status, headers=headers, dumps=json.dumps)


def _broken(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _nothing(write: Write, before: bool) -> None:
    """The default hook."""
