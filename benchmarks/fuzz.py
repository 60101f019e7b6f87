"""Requests that no client should send."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import NamedTuple

from aurora_inference.http.openai_request import ChatBody, CompletionBody, DetokenizeBody

MODEL = "bench"

_VALUES: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    1 << 31,
    1 << 32,
    1 << 63,
    1 << 64,
    -(1 << 63),
    10**40,
    0.5,
    -0.5,
    1e-300,
    1e300,
    "",
    "a",
    "\x00",
    "🙂",
    "a" * 5000,
    [],
    [None],
    [[]],
    [[[1]]],
    {},
    {"a": {"b": []}},
    [0] * 600,
    ["a", "b"],
    {"role": "user", "content": "a"},
    [{"role": "user", "content": "a"}],
    [{"role": "assistant", "content": None, "tool_calls": [{}]}],
)
_NAMES = sorted(
    {*CompletionBody.model_fields, *ChatBody.model_fields, *DetokenizeBody.model_fields, "unknown"}
)
_PATHS = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/v1/models")
_BASES: tuple[dict[str, object], ...] = (
    {"model": MODEL, "prompt": "hello", "max_tokens": 2},
    {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 2, "stream": True},
    {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    {"model": MODEL, "tokens": [5, 6]},
)
_RAW: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    lambda source, body: body[: source.randrange(len(body) + 1)],
    lambda source, body: body + body,
    lambda source, body: source.randbytes(source.randrange(200)),
    lambda source, body: b"[" * source.randrange(2000),
    lambda source, body: body.replace(b'"', b"'"),
    lambda source, body: body.replace(b":", b":NaN,", 1),
    lambda source, body: body.replace(b"hello", b"\\ud800"),
    lambda source, body: bytes(each ^ (source.random() < 0.02) for each in body),
)
_HEADERS: tuple[dict[str, str], ...] = (
    {},
    {},
    {},
    {"content-type": "text/plain"},
    {"content-encoding": "gzip"},
    {"content-encoding": "br"},
    {"x-request-id": "a" * 4000},
    {"authorization": "Bearer a"},
    {"x-aurora-tenant": "t" * 500},
    {"accept": "application/openmetrics-text"},
)


class FuzzedRequest(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    content: bytes


def fuzzed(source: random.Random) -> FuzzedRequest:
    """One request, a valid one with a few things wrong."""
    body = dict(source.choice(_BASES))
    for _ in range(source.randrange(4)):
        body[source.choice(_NAMES)] = source.choice(_VALUES)
    content = json.dumps(body).encode()
    if source.random() < 0.2:
        content = source.choice(_RAW)(source, content)
    method = source.choice(("POST",) * 12 + ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))
    headers = {"content-type": "application/json", **source.choice(_HEADERS)}
    return FuzzedRequest(method, source.choice(_PATHS), headers, content)
