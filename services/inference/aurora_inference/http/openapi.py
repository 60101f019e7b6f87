"""What /openapi.json says; the tests hold it against what is served."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema
from typing_extensions import TypedDict

from aurora_inference.http.error_body import ErrorDetail
from aurora_inference.http.openai_request import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    TokenizeBody,
)

API_DESCRIPTION = (
    "OpenAI's completions and chat completions, served with speculative decoding: the output is "
    "the target's own. Parameters that are not listed are ignored."
)
_REFERENCE = "#/components/schemas/{model}"
_JSON = "application/json"
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {"type": "string", "description": "A chunk as JSON; at the end, [DONE]."}
    },
}


class Speculation(TypedDict):
    """Which draft served the request; rates are null if nothing was drafted."""

    draft: str
    draft_digest: str
    arm: str
    drafted_tokens: int
    accepted_tokens: int
    acceptance_rate: float | None
    mean_acceptance_length: float | None


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: None
    finish_reason: str


class Completion(TypedDict):
    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    aurora: Speculation


class Message(TypedDict):
    role: str
    content: str
    refusal: None


class ChatChoice(TypedDict):
    index: int
    message: Message
    logprobs: None
    finish_reason: str


class ChatCompletion(TypedDict):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    aurora: Speculation


class Model(TypedDict):
    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int


class ModelList(TypedDict):
    object: str
    data: list[Model]


class Tokenized(TypedDict):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(TypedDict):
    prompt: str


class Health(TypedDict):
    status: str


class Version(TypedDict):
    version: str


class Error(TypedDict):
    error: ErrorDetail


_BODIES = (CompletionBody, ChatBody, TokenizeBody, DetokenizeBody)
_ANSWERS = (Completion, ChatCompletion, ModelList, Model, Tokenized, Detokenized, Health, Version)
_ERRORS = {
    "400": "The request is malformed, or a parameter is not allowed.",
    "401": "No valid bearer token.",
    "404": "No such model.",
    "408": "The body did not arrive in time.",
    "413": "The body is larger than the model's context.",
    "415": "The body's encoding is not supported.",
    "429": "Too many requests are waiting; see Retry-After.",
    "503": "The server is starting or stopping; see Retry-After.",
}


def documented(body: str | None, answer: str | None, *, streams: bool = False) -> dict[str, Any]:
    """The route arguments that describe an endpoint; `answer` None: plain text."""
    content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if answer is not None:
        content = {_JSON: {"schema": _reference(answer)}}
    if streams:
        content["text/event-stream"] = {"schema": _EVENT}
    failed = {_JSON: {"schema": _reference("Error")}}
    described: dict[str, Any] = {
        "responses": {
            "200": {"description": "OK", "content": content},
            **{code: {"description": text, "content": failed} for code, text in _ERRORS.items()},
        }
    }
    if body is not None:
        schema = _reference(body)
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    return {"response_model": None, "openapi_extra": described}


def install(app: FastAPI) -> None:
    """Adds the schemas that `documented` refers to."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generated()
            components = schema.setdefault("components", {})
            components["schemas"] = _schemas()
            for path in schema["paths"].values():
                for operation in path.values():
                    # FastAPI's own, which is not how errors look here.
                    operation["responses"].pop("422", None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _schemas() -> dict[str, Any]:
    _, bodies = models_json_schema(
        [(body, "validation") for body in _BODIES], ref_template=_REFERENCE
    )
    schemas: dict[str, Any] = dict(bodies["$defs"])
    for answer in (*_ANSWERS, Error):
        described = TypeAdapter(answer).json_schema(ref_template=_REFERENCE)
        schemas |= described.pop("$defs", {})
        schemas[answer.__name__] = described
    return schemas


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=name)}
