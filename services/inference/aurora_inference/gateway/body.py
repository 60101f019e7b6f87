"""Bodies of requests: bounded in bytes and seconds, each and all together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from aurora_common.errors import AuroraError

BODY_SECONDS = 60.0
# Of all bodies that are held at the same time.
_MAX_HELD_BYTES = 512 << 20


class BodyRefusedError(AuroraError):
    """A body is too large, too slow, or one too many."""

    def __init__(self, status: int, message: str) -> None:
        self.http_status = status
        super().__init__(message)


class Bodies:
    """Reads bodies; raises BodyRefusedError with 413, 408 or 429."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0

    async def whole(self, request: web.BaseRequest) -> bytes:
        """The body, which counts as held until `release`."""
        size = 0
        parts = []
        try:
            async for part in self.parts(request):
                size += len(part)
                self._held_bytes += len(part)
                if self._held_bytes > _MAX_HELD_BYTES:
                    raise BodyRefusedError(429, "the server is receiving too many long requests")
                parts.append(part)
        except BaseException:
            self._held_bytes -= size
            raise
        return b"".join(parts)

    def release(self, body: bytes) -> None:
        self._held_bytes -= len(body)

    async def parts(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        """The body as it comes."""
        if (request.content_length or 0) > self._max_bytes:
            raise self._too_large()
        if request.headers.get("expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The answer's own head is still to come.
            request.writer.output_size = 0
        size = 0
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    part = await request.content.readany()
            except TimeoutError as error:
                raise BodyRefusedError(
                    408, f"the body was not complete within {BODY_SECONDS:.0f} seconds"
                ) from error
            if not part:
                return
            size += len(part)
            if size > self._max_bytes:
                raise self._too_large()
            yield part

    def _too_large(self) -> BodyRefusedError:
        return BodyRefusedError(413, f"the body is larger than {self._max_bytes} bytes")
