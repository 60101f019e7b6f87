"""Finds replicas by name: there is one at every address that it resolves to."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NewType

from aurora_common.errors import UnavailableError
from aurora_trainer.settings import Endpoint

# One replica's IP:PORT.
Place = NewType("Place", str)


def places(endpoints: Sequence[Endpoint]) -> tuple[Place, ...]:
    """The replicas behind the endpoints, ordered by address; blocks while resolving.

    Raises UnavailableError if no endpoint resolves.
    """
    found: set[Place] = set()
    failures = []
    for endpoint in endpoints:
        try:
            found.update(_places(endpoint))
        except (OSError, UnicodeError) as error:
            # No address, or not a valid name.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            failures.append(f"{endpoint.host}: {reason}")
    if failures and not found:
        raise UnavailableError("; ".join(failures))
    return tuple(sorted(found))


def _places(endpoint: Endpoint) -> list[Place]:
    answers = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    families = {family for family, *_ in answers}
    # With both families, each replica would be found twice.
    used = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    return [
        Place(f"{ip}:{endpoint.port}" if used == socket.AF_INET else f"[{ip}]:{endpoint.port}")
        for family, *_, (ip, *_) in answers
        if family == used
    ]
