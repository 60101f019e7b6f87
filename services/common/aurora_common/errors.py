"""The one exception tree: each error says what went wrong, which value, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

# A process's exit code if another start would fail as well (sysexits.h: EX_CONFIG).
REFUSED = 78


class AuroraError(Exception):
    """Base of every error that Aurora raises on purpose; its text is meant for a person.

    `grpc_code` names the gRPC status, so that pure code need not import gRPC.
    """

    grpc_code = "INTERNAL"
    http_status = 500


class InvalidInputError(AuroraError):
    """The caller's value is not allowed."""

    grpc_code = "INVALID_ARGUMENT"
    http_status = 400


class UnauthenticatedError(AuroraError):
    """The caller did not prove who it is."""

    grpc_code = "UNAUTHENTICATED"
    http_status = 401


class ForbiddenError(AuroraError):
    """The caller is known but not allowed to do that here."""

    grpc_code = "PERMISSION_DENIED"
    http_status = 403


class NotFoundError(AuroraError):
    """What the caller names does not exist."""

    grpc_code = "NOT_FOUND"
    http_status = 404


class ConflictError(AuroraError):
    """The call does not fit the current state; retrying it unchanged does not help."""

    grpc_code = "FAILED_PRECONDITION"
    http_status = 409


class OverloadedError(AuroraError):
    """A bounded queue is full; retry later."""

    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429


class UnavailableError(AuroraError):
    """A dependency is unreachable for now; retry."""

    grpc_code = "UNAVAILABLE"
    http_status = 503


class CheckpointError(AuroraError):
    """A checkpoint is corrupt or does not fit the target; it is never served."""

    grpc_code = "FAILED_PRECONDITION"
    http_status = 409


class ManifestError(InvalidInputError):
    """A manifest is invalid; `problems` lists each with its path and what is allowed."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{source} is not a valid AuroraDeployment:\n{lines}")


class DeviceLostError(AuroraError):
    """A GPU's context is broken: only another process may compute on it again."""

    grpc_code = "UNAVAILABLE"
    http_status = 503


class StorageError(AuroraError):
    """A file cannot be read or written: no space, no permission, missing."""

    grpc_code = "UNAVAILABLE"
    http_status = 503


def exit_code(error: AuroraError) -> int:
    """The exit code of a process that this error ends: REFUSED if starting again cannot help."""
    lasting = (InvalidInputError, NotFoundError, CheckpointError)
    return REFUSED if isinstance(error, lasting) else 1
