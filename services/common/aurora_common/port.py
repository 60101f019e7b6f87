"""Ports and addresses to listen on."""

from __future__ import annotations

import secrets
import socket

# Below the ephemeral ports of Linux and macOS, and below Kubernetes' node ports: no outgoing
# connection, least of all a client's that polls the very port, takes it before its server does.
_PORTS = range(20_000, 30_000)


def free_port() -> int:
    """A random loopback port that nothing listens on now."""
    while True:
        port = secrets.choice(_PORTS)
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
