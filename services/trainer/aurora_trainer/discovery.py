"""Where the other replicas are: every address behind a name but our own."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from aurora_common.errors import UnavailableError
from aurora_trainer.settings import Endpoint


@dataclass(frozen=True, slots=True)
class Place:
    """One replica: `address` is IP:PORT, `server_name` whom its certificate names."""

    address: str
    server_name: str


def places(
    endpoints: Sequence[Endpoint], *, own_ip: str | None, own_port: int
) -> tuple[Place, ...]:
    """The replicas behind the endpoints, in order of their addresses; blocks while it asks.

    `own_ip`: ours; None: whatever this host has. Raises UnavailableError where no endpoint has an
    address.
    """
    found: dict[Place, None] = {}
    failures = []
    for endpoint in endpoints:
        try:
            ips = _addresses(endpoint, own_ip)
        except (OSError, UnicodeError) as error:
            # Without an address, or not a name at all.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            failures.append(f"{endpoint.host}: {reason}")
            continue
        for ip in ips:
            ours = _is_of_this_host(ip) if own_ip is None else ip == own_ip
            if not (ours and endpoint.port == own_port):
                host = f"[{ip}]" if ":" in ip else ip
                found[Place(f"{host}:{endpoint.port}", endpoint.host)] = None
    if failures and len(failures) == len(endpoints):
        raise UnavailableError("; ".join(failures))
    return tuple(sorted(found, key=lambda place: place.address))


def _addresses(endpoint: Endpoint, own_ip: str | None) -> list[str]:
    answers = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    # Of one family: by the other, each replica would be found a second time.
    family = answers[0][0] if own_ip is None else _family(own_ip)
    return [str(address[0]) for answer, *_, address in answers if answer == family]


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET if ipaddress.ip_address(ip).version == 4 else socket.AF_INET6


def _is_of_this_host(ip: str) -> bool:
    """Whether a socket can be bound to it."""
    with socket.socket(_family(ip), socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True
