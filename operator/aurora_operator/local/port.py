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


def free_ports(count: int, *, reserved: frozenset[int] = frozenset()) -> list[int]:
    """`count` different ports that are free now and not `reserved`."""
    ports: set[int] = set()
    while len(ports) < count:
        ports |= {free_port()} - reserved
    return list(ports)


def chosen_ports(
    names: Sequence[str],
    kept: Mapping[str, int],
    in_use: frozenset[str],
    *,
    reserved: frozenset[int] = frozenset(),
) -> dict[str, int]:
    """A port for each name: the kept one, unless another process bound it meanwhile.

    `in_use`: names whose own process is listening on the kept port. `reserved`: ports for others.
    """
    ports = {
        name: kept[name]
        for name in names
        if name in kept and kept[name] not in reserved and (name in in_use or is_free(kept[name]))
    }
    missing = [name for name in names if name not in ports]
    reserved |= frozenset(ports.values())
    return ports | dict(zip(missing, free_ports(len(missing), reserved=reserved), strict=True))
