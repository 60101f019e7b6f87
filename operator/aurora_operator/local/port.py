"""Free loopback ports, and those that a deployment keeps."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

from aurora_common.port import free_port
from aurora_operator.local.process_spec import HOST


def is_free(port: int) -> bool:
    """Whether a server could bind the port now."""
    with socket.socket() as probe:
        # As servers do: a connection in TIME_WAIT does not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """`count` different ports that are free now."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def chosen_ports(
    names: Sequence[str], kept: Mapping[str, int], in_use: frozenset[str]
) -> dict[str, int]:
    """A port for each name: the kept one, unless another process bound it meanwhile.

    `in_use`: names whose own process is listening on the kept port.
    """
    ports = {
        name: kept[name]
        for name in names
        if name in kept and (name in in_use or is_free(kept[name]))
    }
    missing = [name for name in names if name not in ports]
    return ports | dict(zip(missing, free_ports(len(missing)), strict=True))
