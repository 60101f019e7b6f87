"""An HTTP connection that must begin with a request's head soon."""

from __future__ import annotations

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
# Longer than clients keep idle connections: if the server closes one first, a request already on
# its way is lost.
KEEP_ALIVE_SECONDS = 75
# A peer that vanished without closing is noticed after about two minutes.
_PROBE_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 60, 20, 3
_BACKLOG = 1024


class TimedConnection(H11Protocol):
    """Closes a connection on which a head is incomplete for HEAD_SECONDS.

    uvicorn itself bounds only the time between two requests.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)


def listening(host: str, port: int) -> socket.socket:
    """A listening TCP socket; `::` takes IPv4 too.

    The protocol must be explicit: asyncio disables Nagle's algorithm only then, and with it a
    response of two writes waits 40 ms for the acknowledgement of the first.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit the probes.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            for option, value in (
                (socket.TCP_KEEPIDLE, _PROBE_IDLE_SECONDS),
                (socket.TCP_KEEPINTVL, _PROBE_SECONDS),
                (socket.TCP_KEEPCNT, _PROBES),
            ):
                listener.setsockopt(socket.IPPROTO_TCP, option, value)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
