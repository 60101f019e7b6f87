"""An HTTP connection that must begin with a request's head soon, and whose answer arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
# Longer than clients keep idle connections: if the server closes one first, a request already on
# its way is lost.
KEEP_ALIVE_SECONDS = 75
# As long and as much as a client may still send of a request that has its answer.
LINGER_SECONDS = 30.0
_MAX_DISCARDED_BYTES = 64 << 20


class TimedConnection(H11Protocol):
    """Closes a connection on which a head is incomplete for HEAD_SECONDS.

    uvicorn itself bounds only the time between two requests. It also closes a connection while the
    client still sends, whereupon the kernel resets it and the answer is lost: here the rest is read
    and thrown away first.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._lingering = _Lingering(transport, self._is_amid_request)
        super().connection_made(self._lingering)  # type: ignore[arg-type]
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._lingering.discards(data):
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._lingering.close()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _is_amid_request(self) -> bool:
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)


class _Lingering:
    """A transport of which the first `close` amid a request only ends what is sent.

    The second closes it, as do LINGER_SECONDS, _MAX_DISCARDED_BYTES or the client's end.
    """

    def __init__(self, transport: asyncio.Transport, is_amid_request: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_amid_request = is_amid_request
        self._deadline: asyncio.TimerHandle | None = None
        self._discarded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._deadline is not None or self._transport.is_closing()

    def close(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        elif not self._transport.is_closing() and self._is_amid_request():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._transport.resume_reading()
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(LINGER_SECONDS, self._transport.close)
            return
        self._transport.close()

    def discards(self, data: bytes) -> bool:
        """Whether what arrives is no longer wanted."""
        if self._deadline is None:
            return False
        self._discarded += len(data)
        if self._discarded > _MAX_DISCARDED_BYTES:
            self.close()
        return True
