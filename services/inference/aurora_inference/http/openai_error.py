"""Errors in the shape of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from aurora_common.errors import AuroraError
from aurora_inference.http.error_body import (
    RETRY_AFTER_SECONDS,
    ErrorDetail,
    described,
    error_body,
)

_MAX_PROBLEMS = 10


def install(app: FastAPI) -> None:

    @app.exception_handler(AuroraError)
    async def refused(_: Request, error: AuroraError) -> JSONResponse:
        return _response(*described(error))

    @app.exception_handler(ValidationError)
    async def malformed(_: Request, error: ValidationError) -> JSONResponse:
        problems = error.errors(include_url=False, include_input=False)
        message, param = _problems(problems)
        return _response(400, error_body(400, message, param=param))

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> JSONResponse:
        message = error.detail
        if error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            message = f"{request.method} {request.url.path[:200]} is not served here"
        response = _response(error.status_code, error_body(error.status_code, message))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return _response(*described(error))


def _response(status: int, body: dict[str, ErrorDetail]) -> JSONResponse:
    retry = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    headers = {"Retry-After": RETRY_AFTER_SECONDS} if retry else None
    return JSONResponse(body, status_code=status, headers=headers)


# Any: pydantic's errors are plain dicts of mixed values.
def _problems(errors: Sequence[Any]) -> tuple[str, str | None]:
    """The first problems in one message, and the first parameter concerned."""
    messages: list[str] = []
    params: list[str] = []
    for error in errors[:_MAX_PROBLEMS]:
        if error["type"] == "json_invalid":
            return f"the body is not JSON: {error['ctx']['error']}", None
        if not error["loc"]:
            return "the body must be a JSON object", None
        params.append(str(error["loc"][0]))
        place = ".".join(str(part) for part in error["loc"])
        message: str = error["msg"].removeprefix("Value error, ")
        messages.append(f"{place}: {message[0].lower()}{message[1:]}")
    if len(errors) > _MAX_PROBLEMS:
        messages.append(f"and {len(errors) - _MAX_PROBLEMS} more")
    return "; ".join(messages), params[0]
