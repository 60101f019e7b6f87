"""Ports and addresses to listen on."""

from __future__ import annotations

import secrets
import socket
from itertools import count

# Below the ephemeral ports of Linux and macOS, and below Kubernetes' node ports: no outgoing
# connection, least of all a client's that polls the very port, takes it before its server does.
_PORTS = range(20_000, 30_000)
# In turn from a place of the process's own: of processes that each chose by chance, two would soon
# have chosen the same before either server listens.
_turns = count(secrets.randbelow(len(_PORTS)))
# A peer that vanished without closing is noticed after about two minutes.
_PROBE_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 60, 20, 3
_BACKLOG = 1024


def free_port() -> int:
    """A loopback port that nothing listens on now, another one at each of thousands of calls."""
    while True:
        port = _PORTS[next(_turns) % len(_PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def listening_host(host: str) -> str:
    """The host of a HOST:PORT to listen on, without brackets.

    `::` is every address, of IPv4 too; on a machine without IPv6 it becomes 0.0.0.0.
    """
    host = host.removeprefix("[").removesuffix("]")
    if host != "::":
        return host
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((host, 0))
    except OSError:
        return "0.0.0.0"
    return host


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
