"""Why a call is refused."""

from __future__ import annotations

from typing import Any


class RefusedError(Exception):
    """The call is refused and nothing has changed; the text names the value and what is allowed.

    `status` is the HTTP status; `code` is for programs; `param` is the field at fault, if one is.
    """

    def __init__(self, message: str, *, status: int, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def arguments(self) -> dict[str, Any]:
        """What makes the same error in another process."""
        return {
            "message": str(self),
            "status": self.status,
            "code": self.code,
            "param": self.param,
        }

    def to_json(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "invalid_request_error" if self.status < 500 else "engine_error"
        return {"message": str(self), "type": kind, "param": self.param, "code": self.code}


def bad_checkpoint(message: str) -> RefusedError:
    """The files are not a checkpoint that this engine can take."""
    return RefusedError(message, status=400, code="bad_checkpoint", param="path")
