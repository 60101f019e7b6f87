"""The clients' port: passes requests on to the engine and its answers back."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

import aiohttp
from aiohttp import web

from aurora_common.admission import bearer_token
from aurora_common.errors import AuroraError, OverloadedError, UnavailableError
from aurora_common.grpc_server import CallsInFlight
from aurora_common.token import TokenFolder
from aurora_inference.contract import SpeculationReport
from aurora_inference.gateway.answer import EventStream, Report, without_additions
from aurora_inference.gateway.body import Bodies
from aurora_inference.gateway.engine_connection import EngineConnection, whole
from aurora_inference.gateway.header import passed
from aurora_inference.gateway.ledger import InFlight, Ledger
from aurora_inference.gateway.plugin import ROUTES
from aurora_inference.gateway.question import CHAT, COMPLETIONS, Client, Question, question
from aurora_inference.http.error_body import RETRY_AFTER_SECONDS, described, error_body
from aurora_inference.serving import client_header

logger = logging.getLogger(__name__)

# Probes and scrapers have no token; these expose no prompts.
_OPEN = frozenset({"/health", "/metrics"})
# aiohttp would name itself.
_SERVER = {"Server": "aurora"}

_BROKEN_EVENT = (
    b"data: %s\n\n"
    % json.dumps(error_body(502, "the engine broke off before its answer was complete")).encode()
)

OnAnswer = Callable[[Question, Report, SpeculationReport], None]


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """`sample_percent` of the requests are recorded, `capture_percent` of those with the target's
    distributions."""

    opt_out_header: str = "x-aurora-no-train"
    sample_percent: int = 0
    capture_percent: int = 0
    max_inflight: int = 1024
    max_body_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Behind:
    """What a proxy needs to serve.

    `base_models`: those whose answers are the target's own. `problem` says why the engine cannot
    decode, empty if it can; `metrics` makes the page.
    """

    base_models: frozenset[str]
    problem: Callable[[], str]
    metrics: Callable[[], Awaitable[bytes]]
    on_answer: OnAnswer


class Proxy:
    """An aiohttp handler; refuses requests until `open` and after `close`."""

    def __init__(
        self,
        engine: EngineConnection,
        settings: ProxySettings,
        ledger: Ledger,
        tokens: TokenFolder | None,
    ) -> None:
        self.calls = CallsInFlight()
        self._engine = engine
        self._settings = settings
        self._ledger = ledger
        self._tokens = tokens
        self._bodies = Bodies(settings.max_body_bytes)
        self._behind: Behind | None = None
        self._closed = False

    def open(self, behind: Behind) -> None:
        self._behind = behind

    def close(self) -> None:
        """Those in flight go on."""
        self._closed = True

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every error becomes an answer in OpenAI's form.

        Raises ConnectionError if the client has left, or if half an answer has been sent already.
        """
        try:
            return await self._handle(request)
        except AuroraError as error:
            failure: Exception = error
        except ConnectionError:
            raise
        except Exception as error:
            logger.exception("request failed")
            failure = error
        if request.writer.output_size:
            raise ConnectionAbortedError("half an answer has been sent") from failure
        return _error(*described(failure))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # As the engine will read it, so that no other spelling leads to what is not served.
        path = unquote(request.raw_path.partition("?")[0])
        if path in _OPEN and request.method in ("GET", "HEAD"):
            return await _observation(path, self._opened())
        if not self._admits(request):
            message = "no valid token; send the header Authorization: Bearer <token>"
            return _error(401, error_body(401, message, code="invalid_api_key"))
        if not path.startswith("/") or f"{ROUTES}/" in f"{path}/":
            return _error(404, error_body(404, f"{request.method} {path[:200]} is not served here"))
        if "upgrade" in request.headers.get("connection", "").lower():
            return _error(501, error_body(501, "connections cannot be upgraded here"))
        behind = self._opened()
        if self.calls.count >= self._settings.max_inflight:
            raise OverloadedError(
                f"{self.calls.count} requests are in flight, the most allowed; try again later"
            )
        with self.calls:
            if (
                request.method == "POST"
                and path in (CHAT, COMPLETIONS)
                and "content-encoding" not in request.headers
            ):
                return await self._generate(request, path, behind)
            return await self._pass(request, self._bodies.parts(request))

    def _opened(self) -> Behind:
        if self._closed:
            raise UnavailableError("the server is stopping and takes no new requests")
        if self._behind is None:
            raise UnavailableError("the engine is still starting; try again in a few seconds")
        return self._behind

    def _admits(self, request: web.BaseRequest) -> bool:
        """A browser's question whether it may send a token comes without one."""
        if self._tokens is None or request.method == "OPTIONS":
            return True
        return self._tokens.admits(bearer_token(request.headers.get("authorization", "")))

    async def _generate(
        self, request: web.BaseRequest, path: str, behind: Behind
    ) -> web.StreamResponse:
        client = self._client(request)
        body = await self._bodies.whole(request)
        try:
            asked = question(path, body, client, base_models=behind.base_models)
            if asked is None:
                self._ledger.unreported_requests += 1
                return await self._pass(request, body)
            return await self._ask(request, asked, behind.on_answer)
        finally:
            self._bodies.release(body)

    def _client(self, request: web.BaseRequest) -> Client:
        settings, headers = self._settings, request.headers
        opted_out = client_header.opted_out(headers.get(settings.opt_out_header, ""))
        return Client(
            key=uuid.uuid4().hex,
            tenant=client_header.label("tenant", headers.get(client_header.TENANT, "")),
            domain=client_header.label("domain", headers.get(client_header.DOMAIN, "")),
            record=not opted_out and random.random() * 100 < settings.sample_percent,
            capture=random.random() * 100 < settings.capture_percent,
        )

    async def _pass(
        self, request: web.BaseRequest, body: bytes | AsyncIterator[bytes]
    ) -> web.StreamResponse:
        """Passes both ways as they are."""
        async with self._engine.sent(request, body) as answer:
            response = _response(answer)
            await response.prepare(request)
            await self._relay(request, response, answer)
            return response

    async def _ask(
        self, request: web.BaseRequest, asked: Question, on_answer: OnAnswer
    ) -> web.StreamResponse:
        """Passes a question on, and the answer without what the client did not ask for."""
        flight = self._ledger.begin(asked.request.id, is_recorded=asked.request.record)
        # Until the engine has said otherwise.
        report: Report | None = Report(finish_reason="error")
        try:
            # The answer is read: it must not be compressed.
            async with self._engine.sent(request, asked.body, "accept-encoding") as answer:
                if answer.status != 200:
                    report = report if answer.status >= 500 else None
                    response = _response(answer)
                    await response.prepare(request)
                    await self._relay(request, response, answer)
                    return response
                if answer.content_type == "text/event-stream":
                    report = Report()
                    events = EventStream(asked, report)
                    return await self._stream(request, answer, events, flight)
                content, report = without_additions(await whole(answer), asked)
                return _response(answer, content)
        except asyncio.CancelledError:
            # The client has left, which is nobody's failure.
            report = Report() if report is None or report.finish_reason == "error" else report
            raise
        finally:
            if report is None:
                self._ledger.withdraw(flight)
            else:
                self._ledger.end(flight, report, partial(on_answer, asked, report))

    async def _stream(
        self,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        events: EventStream,
        flight: InFlight,
    ) -> web.StreamResponse:
        response = _response(answer)
        await response.prepare(request)

        def seen(part: bytes) -> bytes:
            flight.arrived(self._ledger.clock())
            return events.feed(part)

        is_whole = False
        try:
            is_whole = await self._relay(request, response, answer, seen, _BROKEN_EVENT)
        finally:
            left = events.end()
        if not is_whole:
            events.report.finish_reason = "error"
        elif left:
            await response.write(left)
        return response

    async def _relay(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        answer: aiohttp.ClientResponse,
        seen: Callable[[bytes], bytes] | None = None,
        broken: bytes = b"",
    ) -> bool:
        """Passes the answer's body on part by part, as `seen` returns it; whether it is whole.

        If the engine breaks off, so does the answer, after `broken`: a body that is cut short must
        not look whole.
        """
        while True:
            try:
                part = await answer.content.readany()
            except (aiohttp.ClientError, TimeoutError) as error:
                fields = {"reason": type(error).__name__}
                logger.warning("engine broke off an answer", extra={"fields": fields})
                if broken:
                    await response.write(broken)
                if request.transport is not None:
                    request.transport.close()
                return False
            if not part:
                return True
            if passed_on := part if seen is None else seen(part):
                await response.write(passed_on)


async def _observation(path: str, behind: Behind) -> web.StreamResponse:
    if path == "/metrics":
        headers = {**_SERVER, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=await behind.metrics(), headers=headers)
    if problem := behind.problem():
        raise UnavailableError(f"the engine fails: {problem}")
    return web.json_response({"status": "serving"}, headers=_SERVER)


def _response(answer: aiohttp.ClientResponse, content: bytes | None = None) -> web.StreamResponse:
    """A response with the engine's status and headers, and `content` if it is known already."""
    if content is None:
        headers = passed(answer.headers.items())
        return web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    headers = passed(answer.headers.items(), "content-length")
    return web.Response(body=content, status=answer.status, reason=answer.reason, headers=headers)


def _error(status: int, body: object) -> web.Response:
    headers = {**_SERVER, "Content-Type": "application/json"}
    if status in (429, 503):
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(body=json.dumps(body).encode(), status=status, headers=headers)
