"""The exception tree of the client, and the gRPC status that each error maps to."""

from __future__ import annotations

import grpc


class AuroraClientError(Exception):
    """Base of everything that this package raises on purpose; its text is meant for a person.

    `detail` says what went wrong; `address` is the server's, empty if none was called.
    """

    def __init__(self, detail: str, *, address: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.address = address

    def __str__(self) -> str:
        return f"{self.address}: {self.detail}" if self.address else self.detail


class BadRequestError(AuroraClientError):
    """A value of the request is not allowed."""


class NotFoundError(AuroraClientError):
    """What the request names does not exist."""


class ConflictError(AuroraClientError):
    """The request does not fit the server's current state; retrying it does not help."""


class OverloadedError(AuroraClientError):
    """The server's queue is full; retry later."""


class UnavailableError(AuroraClientError):
    """The server, or a dependency of it, is unreachable for now; retry."""


class DeadlineExceededError(AuroraClientError):
    """The call exceeded its timeout and was cancelled on the server."""


class CallCancelledError(AuroraClientError):
    """The call was cancelled by closing the client, or by the server."""


class PermissionDeniedError(AuroraClientError):
    """The server refused the caller: a missing token or an operation not allowed."""


class UnsupportedError(AuroraClientError):
    """The server has no such method: it is another service or an older version."""


class ServerError(AuroraClientError):
    """The server failed internally; its log has details."""


class BadResponseError(AuroraClientError):
    """The server's response violates the protocol."""


class ClientClosedError(AuroraClientError):
    """The client was closed before the call."""


_ERRORS: dict[grpc.StatusCode, type[AuroraClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: BadRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    grpc.StatusCode.INTERNAL: ServerError,
    # Near equivalents; after those above, since `status_of` returns the first of each class.
    grpc.StatusCode.OUT_OF_RANGE: BadRequestError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDeniedError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.DATA_LOSS: ServerError,
}

# gRPC's prefix for a failed connection; only what follows is worth showing.
_NO_CONNECTION = "failed to connect to all addresses"
# gRPC's message for a method that the server lacks.
_NO_METHOD = "Method not found!"


def error_of(code: grpc.StatusCode, detail: str, *, address: str) -> AuroraClientError:
    """The exception for a call that ended with `code`, other than OK."""
    kind = _ERRORS[code]
    if kind is DeadlineExceededError:
        return kind("the call took longer than its timeout", address=address)
    if kind is UnavailableError and detail.startswith(_NO_CONNECTION):
        return kind(f"cannot connect ({detail.rsplit(': ', 1)[-1]})", address=address)
    if detail == _NO_METHOD:
        return kind(
            "the server lacks this method; is it another service or an older version?",
            address=address,
        )
    return kind(detail or code.name.lower().replace("_", " "), address=address)


def status_of(error: AuroraClientError) -> grpc.StatusCode:
    """The status that makes a client raise this error; UNKNOWN if none does."""
    for code, kind in _ERRORS.items():
        if type(error) is kind:
            return code
    return grpc.StatusCode.UNKNOWN
