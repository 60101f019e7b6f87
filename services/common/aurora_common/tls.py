"""Mutual TLS between components, with certificates that reload while they serve.

A folder holds a component's `ca.crt`, `tls.crt` and `tls.key`, laid out as a mounted Secret of type
kubernetes.io/tls. It is checked whenever a connection begins. Existing connections of a server stay
open; a client's next call uses a new channel.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from aurora_common.errors import InvalidInputError, NotFoundError
from aurora_common.watched_folder import Stamp, stamp

logger = logging.getLogger(__name__)

_FILES = ("ca.crt", "tls.crt", "tls.key")

# For channels between components, which reach each other directly: gRPC would send even loopback
# traffic through the proxy of `http_proxy`.
NO_PROXY = ("grpc.enable_http_proxy", 0)

# Grace for the streams of a replaced channel, which end by their own deadlines.
_OLD_CHANNEL_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Certificates:
    """Our own certificate and key, and the authorities that we trust; all PEM."""

    authorities: bytes
    certificate: bytes
    key: bytes = field(repr=False)


class CertificateFolder:
    """The current certificates of a folder.

    An invalid change, such as a key that does not match its certificate, is logged once, and the
    last valid ones stay in use. Thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        """Raises NotFoundError or InvalidInputError naming the file that is missing or wrong."""
        self._folder = folder
        self._lock = threading.Lock()
        # Why the last reload failed; empty if it did not.
        self._refused = ""
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise NotFoundError(f"{folder} has no {', '.join(missing)}")
        self._stamp: Stamp = stamp(folder)
        try:
            self._certificates = _read(folder)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"the certificates in {folder} are invalid: {error}") from error

    def current(self) -> Certificates:
        """The newest valid certificates."""
        with self._lock:
            try:
                now = stamp(self._folder)
                if now == self._stamp:
                    return self._certificates
                found = _read(self._folder)
                # Replaced while being read: they may be of two generations.
                if stamp(self._folder) != now:
                    return self._certificates
            except (OSError, ValueError) as error:
                self._refuse(str(error))
                return self._certificates
            self._stamp, self._certificates, self._refused = now, found, ""
        logger.info("certificates reloaded", extra={"fields": {"folder": str(self._folder)}})
        return found

    def _refuse(self, reason: str) -> None:
        if reason != self._refused:
            self._refused = reason
            fields = {"folder": str(self._folder), "reason": reason}
            logger.error(
                "certificate reload failed; the previous certificates stay in use",
                extra={"fields": fields},
            )

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a server that requires client certificates of the same authorities."""
        used = self.current()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """Called for each handshake, on a gRPC thread; None keeps the present ones."""
            nonlocal used
            certificates = self.current()
            if certificates is used:
                return None
            used = certificates
            return _server_configuration(certificates)

        return grpc.dynamic_ssl_server_credentials(
            _server_configuration(used),
            changed,  # type: ignore[arg-type]  # the stubs lack None
            require_client_authentication=True,
        )


class Connection:
    """A channel to one address, reopened for the next call after the certificates changed.

    It ignores proxy variables. Without certificates it is plaintext. `server_name`: the name
    expected in the server's certificate, if not the address's host. Belongs to the event loop that
    first uses it.
    """

    def __init__(
        self,
        address: str,
        *,
        certificates: CertificateFolder | None = None,
        options: Sequence[tuple[str, int]] = (),
        server_name: str | None = None,
    ) -> None:
        self.address = address
        self._certificates = certificates
        self._options: list[tuple[str, int | str]] = [NO_PROXY, *options]
        if certificates is not None and server_name is not None:
            self._options.append(("grpc.ssl_target_name_override", server_name))
        self._used: Certificates | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def channel(self) -> grpc.aio.Channel:
        """The channel for a call that begins now; do not keep it."""
        current = None if self._certificates is None else self._certificates.current()
        if self._channel is not None and current is self._used:
            return self._channel
        if self._channel is not None:
            task = asyncio.create_task(self._channel.close(_OLD_CHANNEL_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._used, self._channel = current, self._opened(current)
        return self._channel

    async def close(self) -> None:
        """Cancels the current channel's calls; does not wait for streams on replaced channels."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    def _opened(self, certificates: Certificates | None) -> grpc.aio.Channel:
        if certificates is None:
            return grpc.aio.insecure_channel(self.address, options=self._options)
        credentials = grpc.ssl_channel_credentials(
            certificates.authorities, certificates.key, certificates.certificate
        )
        return grpc.aio.secure_channel(self.address, credentials, options=self._options)


def _read(folder: Path) -> Certificates:
    authorities, certificate, key = ((folder / name).read_bytes() for name in _FILES)
    # Raises if they do not parse or match.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=authorities.decode("ascii"))
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return Certificates(authorities, certificate, key)


def _server_configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.certificate)], certificates.authorities
    )
