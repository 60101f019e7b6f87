"""Free ports on this machine's loopback."""

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
