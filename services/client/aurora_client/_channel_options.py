"""How both clients open their connection."""

from __future__ import annotations

import re

from aurora_client._access import authorization
from aurora_client._errors import BadRequestError
from aurora_common.grpc_server import MESSAGE_OPTIONS

_LOOPBACK = re.compile(r"^(localhost|127\.[0-9.]+|\[::1\]):")


def checked_address(address: str) -> str:
    """`host:port` as given; raises BadRequestError where it is something else."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise BadRequestError(f"{address!r} is not an address; use host:port")
    return address


def channel_options(address: str) -> list[tuple[str, int]]:
    options: list[tuple[str, int]] = [
        *MESSAGE_OPTIONS,
        # Retry decides; gRPC's own attempts would not be counted.
        ("grpc.enable_retries", 0),
        # gRPC's defaults (1 s growing to 120 s) would outlast Retry's pauses, in which every
        # attempt fails without one packet sent.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # How long one connection attempt may take, in spite of its name.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        # A client's connection is its own: closed with it, and not another's in backoff.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if _LOOPBACK.match(address):
        options.append(("grpc.enable_http_proxy", 0))
    return options


def call_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """What every call carries; raises BadRequestError for a token that no header can hold."""
    return () if token is None else (("authorization", authorization(token)),)
