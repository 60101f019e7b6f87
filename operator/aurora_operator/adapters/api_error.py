"""The Kubernetes API's error responses as AuroraErrors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aurora_common.errors import (
    AuroraError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)


class ApiRefusedError(InvalidInputError):
    """The API server refuses the object, or the caller: a retry does not help."""


class KindNotServedError(NotFoundError):
    """The API server does not serve the kind: its definition is not installed."""


class ApiBusyError(UnavailableError):
    """The API server is overloaded or cannot be reached: a retry may help."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


_BY_STATUS: Mapping[int, Callable[[str], AuroraError]] = {
    404: NotFoundError,
    409: ConflictError,
}
# An unknown field is reported as an internal error.
_UNDECLARED = "failed to create typed patch object"


def api_error(status: int, content: bytes, headers: Mapping[str, str]) -> AuroraError:
    """Maps an error response to an AuroraError."""
    answer = _answer(content)
    message = _message(content, answer) or f"the Kubernetes API answers {status}"
    # The error for an object that does not exist names it.
    if status == 404 and "name" not in answer.get("details", {}):
        return KindNotServedError(message)
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    if _UNDECLARED in message:
        return ApiRefusedError(message)
    # 401: a token that was just rotated; 410: a list that took too long.
    if status in (401, 408, 410, 429) or status >= 500:
        retry_after = headers.get("Retry-After", "")
        return ApiBusyError(message, float(retry_after) if retry_after.isdecimal() else None)
    return ApiRefusedError(message)


def _answer(content: bytes) -> Mapping[str, Any]:
    """The Status in the response; empty if there is none."""
    try:
        answer = json.loads(content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _message(content: bytes, answer: Mapping[str, Any]) -> str:
    return str(answer.get("message", "")) or content[:200].decode(errors="replace").strip()
