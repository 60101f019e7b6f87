"""gRPC channels to the components, with mutual TLS if they require it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from aurora_common.tls import Certificates
from aurora_operator.adapters.probe import CHANNEL_OPTIONS


@dataclass(frozen=True, slots=True)
class Peer:
    """A component at `host:port`.

    With an `identity` the connection is mutually authenticated. The peer's certificate must be for
    `server_name`, since certificates do not name pods' addresses.
    """

    address: str
    identity: Certificates | None = None
    server_name: str = ""


def open_channel(peer: Peer, *, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """A channel that connects on first use, and reconnects."""
    every = [*options, *CHANNEL_OPTIONS]
    identity = peer.identity
    if identity is None:
        return grpc.aio.insecure_channel(peer.address, options=every)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=identity.authorities,
        private_key=identity.key,
        certificate_chain=identity.certificate,
    )
    return grpc.aio.secure_channel(
        peer.address,
        credentials,
        options=[*every, ("grpc.ssl_target_name_override", peer.server_name)],
    )
