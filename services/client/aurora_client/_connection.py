"""How clients connect and authenticate: address, TLS, token and channel options."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aurora_client._errors import BadRequestError
from aurora_common.grpc_server import MESSAGE_OPTIONS

_LOOPBACK = re.compile(r"^(localhost|127\.[0-9.]+|\[::1\]):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """A server behind TLS, such as an ingress; its certificate must name the address's host.

    `authorities`: PEM of the trusted CAs; None trusts gRPC's own, or those in the file named by
    GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
    """

    authorities: bytes | None = None


def authorization(token: str) -> str:
    """The header's value. Raises BadRequestError if a header cannot hold the token."""
    if not token.isascii() or not token.isprintable() or not token.strip():
        raise BadRequestError("the token must be printable ASCII")
    return f"Bearer {token}"


def call_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of every call."""
    return () if token is None else (("authorization", authorization(token)),)


def checked_address(address: str) -> str:
    """`address` itself. Raises BadRequestError if it is not host:port."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise BadRequestError(f"{address!r} is not an address; use host:port")
    return address


def channel_options(address: str) -> list[tuple[str, int]]:
    options: list[tuple[str, int]] = [
        *MESSAGE_OPTIONS,
        # Retry decides; gRPC's own attempts would not be counted.
        ("grpc.enable_retries", 0),
        # gRPC's default backoff, 1 s growing to 120 s, would outlast Retry's pauses; until it is
        # over, every attempt fails without sending a packet.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # The timeout of one connection attempt, despite its name.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        # Each client has its own connection: closed with it, and never one already in backoff.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if _LOOPBACK.match(address):
        options.append(("grpc.enable_http_proxy", 0))
    return options
