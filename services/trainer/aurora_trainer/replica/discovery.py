"""Where the replicas are: at every address behind a name."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NewType

from aurora_common.errors import UnavailableError
from aurora_trainer.settings import Endpoint

# One replica's IP:PORT.
Place = NewType("Place", str)


def places(endpoints: Sequence[Endpoint]) -> tuple[Place, ...]:
    """The replicas behind the endpoints, in order of their addresses; blocks while it asks.

    Raises UnavailableError where no endpoint has an address.
    """
    found: set[Place] = set()
    failures = []
    for endpoint in endpoints:
        try:
            found.update(_places(endpoint))
        except (OSError, UnicodeError) as error:
            # Without an address, or not a name at all.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            failures.append(f"{endpoint.host}: {reason}")
    if failures and not found:
        raise UnavailableError("; ".join(failures))
    return tuple(sorted(found))


def _places(endpoint: Endpoint) -> list[Place]:
    answers = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    families = {family for family, *_ in answers}
    # By the other family, each replica would be found a second time.
    used = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    return [
        Place(f"{ip}:{endpoint.port}" if used == socket.AF_INET else f"[{ip}]:{endpoint.port}")
        for family, *_, (ip, *_) in answers
        if family == used
    ]
