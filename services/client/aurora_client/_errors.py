"""One exception tree: what a call can end with, and the gRPC status that each stands for."""

from __future__ import annotations

import grpc


class AuroraClientError(Exception):
    """Base of everything that this package raises on purpose; its text is meant for a person.

    `detail` says what went wrong; `address` names the server, empty where none was asked.
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
    """The request does not fit the server's present state; repeating it does not help."""


class OverloadedError(AuroraClientError):
    """The server's queue is full; trying again later helps."""


class UnavailableError(AuroraClientError):
    """The server, or a part that it needs, cannot be reached now; trying again helps."""


class DeadlineExceededError(AuroraClientError):
    """The call's time ran out; the server was told to stop."""


class CallCancelledError(AuroraClientError):
    """The call was cancelled: by closing the client, or by the server."""


class PermissionDeniedError(AuroraClientError):
    """The server does not let this caller do that."""


class UnsupportedError(AuroraClientError):
    """The server has no such method: another service answers there, or an older one."""


class ServerError(AuroraClientError):
    """The server failed for a reason of its own; its log says more."""


class BadResponseError(AuroraClientError):
    """The server's answer breaks the protocol."""


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
    # Kin of those above. They come after, so that `status_of` finds the first of each class.
    grpc.StatusCode.OUT_OF_RANGE: BadRequestError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDeniedError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.DATA_LOSS: ServerError,
}

# How gRPC words a connection that never came about; only what follows is worth reading.
_NO_CONNECTION = "failed to connect to all addresses"
# And its only word on a method that a server does not have.
_NO_METHOD = "Method not found!"


def error_of(code: grpc.StatusCode, detail: str, *, address: str) -> AuroraClientError:
    """The exception for a call that ended with `code`, which is not OK."""
    kind = _ERRORS[code]
    if kind is DeadlineExceededError:
        return kind("the call took longer than its timeout", address=address)
    if kind is UnavailableError and detail.startswith(_NO_CONNECTION):
        return kind(f"cannot connect ({detail.rsplit(': ', 1)[-1]})", address=address)
    if detail == _NO_METHOD:
        return kind("another service answers there, or an older one", address=address)
    return kind(detail or code.name.lower().replace("_", " "), address=address)


def status_of(error: AuroraClientError) -> grpc.StatusCode:
    """The status with which a server makes a client raise this error; UNKNOWN where none does."""
    for code, kind in _ERRORS.items():
        if type(error) is kind:
            return code
    return grpc.StatusCode.UNKNOWN
