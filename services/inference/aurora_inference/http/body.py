"""What a request's body may cost: bytes, seconds and memory; gzip is undone here."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The longest contexts today, 1M tokens, are about 6 MB of text.
MAX_BODY_BYTES = 16 << 20
BODY_SECONDS = 60.0
# Of all bodies that are being received or answered together.
_MAX_HELD_BYTES = 512 << 20
_GZIP = zlib.MAX_WBITS | 16


class BodyBounds:
    """ASGI middleware: bounds each body and all together.

    413: larger than `max_bytes()`, once gunzipped. 408: not complete within BODY_SECONDS. 429: too
    much is held already. 400 or 415: not gzip though declared so, or another encoding.
    """

    def __init__(self, app: ASGIApp, max_bytes: Callable[[], int]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        body = _Body(receive, Headers(scope=scope).get("content-encoding", ""), self._max_bytes())

        async def bounded_receive() -> Message:
            before = body.size
            message = await body.receive()
            self._held_bytes += body.size - before
            if self._held_bytes > _MAX_HELD_BYTES:
                raise _refused(429, "the server is receiving too many long requests")
            return message

        try:
            return await self._app(scope, bounded_receive, send)
        finally:
            self._held_bytes -= body.size


class _Body:
    """`size`: the bytes received so far, gunzipped."""

    def __init__(self, receive: Receive, encoding: str, max_bytes: int) -> None:
        self.size = 0
        self._receive = receive
        self._encoding = encoding.strip().lower()
        self._max_bytes = max_bytes
        self._gunzip = zlib.decompressobj(_GZIP)
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._complete = False

    async def receive(self) -> Message:
        # After the body only a disconnect comes, which may take as long as the answer.
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise _refused(
                408, f"the body was not complete within {BODY_SECONDS:.0f} seconds"
            ) from error
        self._complete = not message.get("more_body", False)
        if message["type"] != "http.request":
            return message
        chunk = self._decoded(message.get("body", b""))
        self.size += len(chunk)
        if self.size > self._max_bytes:
            raise _refused(
                413,
                f"the body is larger than {self._max_bytes} bytes, which is more than this "
                "model's context can hold",
            )
        return {**message, "body": chunk}

    def _decoded(self, chunk: bytes) -> bytes:
        if self._encoding in ("", "identity"):
            return chunk
        if self._encoding not in ("gzip", "x-gzip"):
            raise _refused(
                415, f"content-encoding {self._encoding[:50]!r} is not supported; use gzip or none"
            )
        try:
            decoded = self._gunzip.decompress(chunk, self._max_bytes - self.size + 1)
        except zlib.error as error:
            raise _refused(400, "the body is not gzip, as content-encoding says") from error
        if self._complete and self.size + len(decoded) <= self._max_bytes and not self._gunzip.eof:
            raise _refused(400, "the gzip body ends too early")
        return decoded


def _refused(status: int, message: str) -> HTTPException:
    """The rest of the body is not waited for: the connection throws it away."""
    return HTTPException(status, message, {"Connection": "close"})
