"""Prometheus metrics over HTTP, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_common.port import listening_host


@contextmanager
def metrics_served(address: str | None, registry: CollectorRegistry) -> Iterator[None]:
    """Serves the registry on HOST:PORT; does nothing without an address.

    Raises InvalidInputError if the address is malformed, UnavailableError if it cannot be bound.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise InvalidInputError(f"--metrics-listen is {address!r}: expected HOST:PORT")
    try:
        server, thread = start_http_server(int(port), listening_host(host), registry=registry)
    except (OSError, OverflowError) as error:
        raise UnavailableError(f"cannot serve metrics on {address}: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
