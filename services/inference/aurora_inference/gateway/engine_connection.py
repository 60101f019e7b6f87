"""Connections to the engine: sends requests on, and says how it failed to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import aiohttp
from aiohttp import web
from yarl import URL

from aurora_common.errors import AuroraError, UnavailableError
from aurora_inference.gateway.header import passed

# An engine may queue a request for long, but not for ever.
_SILENCE_SECONDS = 3600.0
_CONNECT_SECONDS = 5.0
# Shorter than an engine keeps idle connections: uvicorn closes them after 5 s, and a request that
# is on its way then is lost.
_KEEP_ALIVE_SECONDS = 3.0
_LARGE_BYTES = 1 << 20


class EngineBrokeOffError(AuroraError):
    """The engine ended the connection before its answer was complete."""

    http_status = 502


class EngineSilentError(AuroraError):
    """The engine has sent nothing for too long."""

    http_status = 504


def engine_session() -> aiohttp.ClientSession:
    """Connections to the engine; passes on whatever it says, as it says it."""
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
    )
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=timeout,
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        max_line_size=1 << 16,
        max_field_size=1 << 16,
        trust_env=False,
    )


class EngineConnection:
    """`engine`: its URL without a path; `key` goes to it in place of the clients' own, if any."""

    def __init__(self, session: aiohttp.ClientSession, engine: str, key: str = "") -> None:
        self._session = session
        self._engine = engine
        self._key = key

    @asynccontextmanager
    async def sent(
        self, request: web.BaseRequest, body: bytes | AsyncIterator[bytes], *without: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The engine's answer, as soon as its head is there; ends the request if left early."""
        refused = list[AuroraError]()

        async def parts(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            try:
                async for part in body:
                    yield part
            except AuroraError as error:
                refused.append(error)
                raise

        data: bytes | BytesIO | AsyncIterator[bytes] | None = None
        if isinstance(body, bytes):
            # aiohttp warns of larger ones.
            data = body if len(body) <= _LARGE_BYTES else BytesIO(body)
            without = (*without, "content-length")
        elif request.can_read_body:
            data = parts(body)
        headers = passed(request.headers.items(), "expect", *without)
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = URL(self._engine + request.raw_path, encoded=True)
        try:
            answer = await self._session.request(
                request.method, url, headers=headers, data=data, allow_redirects=False
            )
        except TimeoutError as error:
            raise EngineSilentError("the engine did not answer in time") from error
        except aiohttp.ClientError as error:
            if refused:
                raise refused[0] from error
            if isinstance(error, aiohttp.ClientConnectorError):
                raise UnavailableError("the engine cannot be reached; try again later") from error
            raise EngineBrokeOffError("the engine broke off before it answered") from error
        try:
            yield answer
        finally:
            if answer.content.at_eof():
                answer.release()
            else:
                answer.close()


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """The answer's body. Raises EngineSilentError or EngineBrokeOffError."""
    try:
        return await answer.read()
    except TimeoutError as error:
        raise EngineSilentError("the engine did not complete its answer in time") from error
    except aiohttp.ClientError as error:
        raise EngineBrokeOffError("the engine broke off before its answer was complete") from error
