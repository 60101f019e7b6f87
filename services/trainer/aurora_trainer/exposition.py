"""Prometheus metrics over HTTP, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from aurora_common.errors import InvalidInputError, UnavailableError


@contextmanager
def metrics_served(address: str | None, collector: Collector) -> Iterator[None]:
    """Serves what the collector tells on HOST:PORT; nothing where there is no address.

    Raises InvalidInputError for what is no address, UnavailableError where it cannot be served.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise InvalidInputError(f"--metrics-listen is {address!r}: expected HOST:PORT")
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(int(port), host, registry=registry)
    except (OSError, OverflowError) as error:
        raise UnavailableError(f"cannot serve metrics on {address}: {error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
