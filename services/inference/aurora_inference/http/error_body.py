"""The shape of errors in OpenAI's API."""

from __future__ import annotations

from http import HTTPStatus

from typing_extensions import TypedDict

from aurora_common.errors import AuroraError
from aurora_inference.serving.refusal import ModelNotFoundError, RefusedParameterError

# With 429 and 503.
RETRY_AFTER_SECONDS = "1"


class ErrorDetail(TypedDict):
    """`type` is the family, `code` the exact case if OpenAI names it."""

    message: str
    type: str
    param: str | None
    code: str | None


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, ErrorDetail]:
    return {"error": ErrorDetail(message=message, type=_error_type(status), param=param, code=code)}


def described(error: Exception) -> tuple[int, dict[str, ErrorDetail]]:
    """The status and body for an error; unexpected errors disclose nothing."""
    match error:
        case RefusedParameterError() | ModelNotFoundError():
            body = error_body(error.http_status, str(error), param=error.param, code=error.code)
            return error.http_status, body
        case AuroraError():
            code = "queue_full" if error.http_status == HTTPStatus.TOO_MANY_REQUESTS else None
            return error.http_status, error_body(error.http_status, str(error), code=code)
    return 500, error_body(500, "internal error")


def _error_type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
