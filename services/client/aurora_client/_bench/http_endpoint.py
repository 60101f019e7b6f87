"""Endpoint of a load: an OpenAI-compatible server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

import httpx2

from aurora_client._bench.load import Acceptance, Piece
from aurora_client._errors import (
    AuroraClientError,
    BadRequestError,
    BadResponseError,
    ConflictError,
    DeadlineExceededError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ServerError,
    UnavailableError,
)
from aurora_client._request import GenerateOptions

_ERRORS: dict[int, type[AuroraClientError]] = {
    400: BadRequestError,
    401: PermissionDeniedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: BadRequestError,
    429: OverloadedError,
    503: UnavailableError,
}
_DATA = "data:"


class HttpEndpoint:
    """Streams from `/v1/completions` below the client's base URL; the caller closes the client."""

    def __init__(self, client: httpx2.AsyncClient, options: GenerateOptions, model: str) -> None:
        self._client = client
        self._body: dict[str, object] = {
            **{key: value for key, value in options.items() if key != "no_train"},
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        self._headers = {"x-aurora-no-train": "true"} if options.get("no_train") else {}

    async def stream(self, prompt: str) -> AsyncIterator[Piece]:
        body = {**self._body, "prompt": prompt}
        try:
            async with self._client.stream(
                "POST", "/v1/completions", json=body, headers=self._headers
            ) as response:
                if response.status_code != httpx2.codes.OK:
                    await response.aread()
                    raise _refusal(response)
                async for line in response.aiter_lines():
                    text = line.removeprefix(_DATA).strip()
                    if line.startswith(_DATA) and text != "[DONE]":
                        yield _piece(text)
        except httpx2.HTTPError as failure:
            raise _error_of(failure, self._client) from failure


async def served_model(client: httpx2.AsyncClient) -> str:
    """The first model listed by the server."""
    try:
        response = await client.get("/v1/models")
    except httpx2.HTTPError as failure:
        raise _error_of(failure, client) from failure
    if response.status_code != httpx2.codes.OK:
        raise _refusal(response)
    match response.json():
        case {"data": [{"id": str(model)}, *_]}:
            return model
        case _:
            raise BadResponseError("/v1/models lists no model", address=str(client.base_url))


def _piece(text: str) -> Piece:
    try:
        event: object = json.loads(text)
    except ValueError as error:
        raise BadResponseError("the stream contains an event that is not JSON") from error
    if not isinstance(event, Mapping):
        raise BadResponseError("the stream contains an event that is not an object")
    if "error" in event:
        raise ServerError(_message(event) or "the stream ended with an error")
    return Piece(
        has_text=_has_text(event.get("choices")),
        output_tokens=_output_tokens(event.get("usage")),
        acceptance=_acceptance(event.get("aurora")),
    )


def _has_text(choices: object) -> bool:
    match choices:
        case [{"text": str(text)}, *_]:
            return bool(text)
        case _:
            return False


def _output_tokens(usage: object) -> int | None:
    match usage:
        case {"completion_tokens": int(output_tokens)}:
            return output_tokens
        case _:
            return None


def _acceptance(reported: object) -> Acceptance | None:
    match reported:
        case {"drafted_tokens": int(drafted), "accepted_tokens": int(accepted), **rest}:
            counts = {key: count for key, count in rest.items() if isinstance(count, int)}
            return Acceptance(
                drafted + counts.get("ngram_drafted_tokens", 0),
                accepted + counts.get("ngram_accepted_tokens", 0),
                counts.get("steps"),
            )
        case _:
            return None


def _refusal(response: httpx2.Response) -> AuroraClientError:
    try:
        content: object = response.json()
    except ValueError:
        content = None
    detail = _message(content) or f"HTTP status {response.status_code}"
    return _ERRORS.get(response.status_code, ServerError)(detail, address=str(response.url))


def _message(content: object) -> str:
    match content:
        case {"error": {"message": str(message)}}:
            return message
        case _:
            return ""


def _error_of(failure: httpx2.HTTPError, client: httpx2.AsyncClient) -> AuroraClientError:
    address = str(client.base_url)
    if isinstance(failure, httpx2.TimeoutException):
        return DeadlineExceededError("the request took longer than its timeout", address=address)
    return UnavailableError(str(failure) or type(failure).__name__, address=address)
