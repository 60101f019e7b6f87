"""How a server and its client prove to each other who they are."""

from __future__ import annotations

from dataclasses import dataclass

from aurora_client._errors import BadRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """A server behind TLS, at an ingress for example; its certificate is for the address' host.

    `authorities`: PEM of those that may vouch for it; None: those that gRPC brings, or those in the
    file that GRPC_DEFAULT_SSL_ROOTS_FILE_PATH of the environment names.
    """

    authorities: bytes | None = None


def authorization(token: str) -> str:
    """The header's value; raises BadRequestError for a token that no header can hold."""
    if not token.isascii() or not token.isprintable() or not token.strip():
        raise BadRequestError("the token must be printable ASCII")
    return f"Bearer {token}"
