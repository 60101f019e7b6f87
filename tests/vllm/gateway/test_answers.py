"""Through the gateway, answers are vLLM's own, byte for byte."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable

import httpx2
import pytest
from stock.counters import GENERATED, total
from stock.server import KEY

PROMPT = {"model": "tiny", "prompt": "select a from b", "max_tokens": 24, "temperature": 0}
CHAT = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello 世界"}],
    "max_tokens": 24,
    "temperature": 0,
}
STREAM = {"stream": True}
USAGE = {"stream_options": {"include_usage": True}}
CONTINUOUS = {"continuous_usage_stats": True}
TOOL = {
    "tools": [
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
        }
    ],
    "tool_choice": "none",
}
FORCED_TOOL = TOOL | {"tool_choice": {"type": "function", "function": {"name": "f"}}}
# A path and a body; what is sampled has a seed.
REQUESTS = {
    "completion": ("/v1/completions", PROMPT),
    "completion stream": ("/v1/completions", PROMPT | STREAM),
    "completion stream usage": ("/v1/completions", PROMPT | STREAM | USAGE),
    "continuous usage": (
        "/v1/completions",
        PROMPT | STREAM | {"stream_options": {"include_usage": True} | CONTINUOUS},
    ),
    "ignored continuous usage": (
        "/v1/completions",
        PROMPT | STREAM | {"stream_options": CONTINUOUS},
    ),
    "completion logprobs": ("/v1/completions", PROMPT | {"logprobs": 3}),
    "completion stream logprobs": ("/v1/completions", PROMPT | STREAM | {"logprobs": 3}),
    "own token ids": ("/v1/completions", PROMPT | {"return_token_ids": True}),
    "own token ids stream": ("/v1/completions", PROMPT | STREAM | {"return_token_ids": True}),
    "tokens": ("/v1/completions", PROMPT | {"prompt": [5, 6, 7]}),
    "tokens stream": ("/v1/completions", PROMPT | STREAM | {"prompt": [5, 6, 7]}),
    "echo": ("/v1/completions", PROMPT | {"echo": True}),
    "echo stream": ("/v1/completions", PROMPT | STREAM | {"echo": True}),
    "two prompts": ("/v1/completions", PROMPT | {"prompt": ["a", "b"]}),
    "two choices": ("/v1/completions", PROMPT | {"n": 2, "temperature": 0.5, "seed": 1}),
    "two choices stream": (
        "/v1/completions",
        PROMPT | STREAM | {"n": 2, "temperature": 0.5, "seed": 1, "max_tokens": 2},
    ),
    "seed": ("/v1/completions", PROMPT | {"temperature": 0.7, "seed": 3}),
    "stop": ("/v1/completions", PROMPT | {"stop": ["e"], "max_tokens": 60}),
    "stop stream": ("/v1/completions", PROMPT | STREAM | {"stop": ["e"], "max_tokens": 60}),
    "one token": ("/v1/completions", PROMPT | {"max_tokens": 1}),
    "one token stream": ("/v1/completions", PROMPT | STREAM | {"max_tokens": 1}),
    "arguments": ("/v1/completions", PROMPT | {"vllm_xargs": {"a": 1}}),
    "chat": ("/v1/chat/completions", CHAT),
    "chat stream": ("/v1/chat/completions", CHAT | STREAM),
    "chat stream usage": ("/v1/chat/completions", CHAT | STREAM | USAGE),
    "chat logprobs": ("/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 3}),
    "chat stream logprobs": (
        "/v1/chat/completions",
        CHAT | STREAM | {"logprobs": True, "top_logprobs": 3},
    ),
    "chat echo": ("/v1/chat/completions", CHAT | {"echo": True}),
    "chat object": (
        "/v1/chat/completions",
        CHAT | {"response_format": {"type": "json_object"}, "max_tokens": 40},
    ),
    "chat tool": ("/v1/chat/completions", CHAT | TOOL),
    "chat tool stream": ("/v1/chat/completions", CHAT | STREAM | TOOL),
    "no tool parser": ("/v1/chat/completions", CHAT | FORCED_TOOL),
    "responses": (
        "/v1/responses",
        {"model": "tiny", "input": "hello", "max_output_tokens": 8, "temperature": 0},
    ),
    "messages": ("/v1/messages", CHAT),
    "tokenize": ("/tokenize", {"model": "tiny", "prompt": "hello 世界"}),
    "detokenize": ("/detokenize", {"model": "tiny", "tokens": [5, 6, 7]}),
    "models": ("/v1/models", None),
    "version": ("/version", None),
    "no such model": ("/v1/completions", PROMPT | {"model": "other"}),
    "no such path": ("/v1/nothing", {}),
    "no body": ("/v1/completions", {}),
    "wrong type": ("/v1/completions", PROMPT | {"max_tokens": "many"}),
    "wrong usage": ("/v1/completions", PROMPT | USAGE),
    "too long": ("/v1/completions", PROMPT | {"max_tokens": 100_000}),
    "embeddings": ("/v1/embeddings", {"model": "tiny", "input": "a"}),
}
_ATTEMPTS = 20
# What differs from one time to the next.
CHANGING = re.compile(
    rb'((?:chatcmpl|cmpl|resp|msg|rs|call|tool|chatcmpl-tool)[-_][0-9a-zA-Z-]+)|"created(?:_at)?":\d+|'
    rb'"(?:permission|id)":"?modelperm-[0-9a-f]+'
)
METRICS = re.compile(rb'"metrics":\{"[^{}]*\{[^{}]*\}[^{}]*\}')


def settled(content: bytes) -> bytes:
    """Without what changes, and without what the flag of per-request metrics has added."""
    content = METRICS.sub(b'"metrics":null', content)
    if content.startswith((b"data: ", b"event: ")):
        content = content.replace(b',"metrics":null', b"")
    return CHANGING.sub(b"", content)


def asked(url: str, path: str, body: dict | None) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    if body is None:
        return httpx2.get(url + path, headers=headers, timeout=60)
    return httpx2.post(url + path, json=body, headers=headers, timeout=60)


@pytest.mark.parametrize("name", REQUESTS)
def test_an_answer_is_as_without_the_gateway(vllm, gateway, name):
    path, body = REQUESTS[name]
    found: list[set[bytes]] = [set(), set()]
    # If the machine is busy, vLLM joins the tokens of several steps in one chunk.
    for _ in range(_ATTEMPTS):
        direct = asked(f"http://127.0.0.1:{vllm.port}", path, body)
        through = asked(gateway.url, path, body)
        assert through.status_code == direct.status_code
        for seen, answer in zip(found, (direct, through), strict=True):
            seen.add(settled(answer.content))
        if found[0] & found[1]:
            break
    assert found[0] & found[1]
    kept = ("content-type", "server", "transfer-encoding", "allow")
    for header in kept:
        assert through.headers.get(header) == direct.headers.get(header)
    if "content-length" in direct.headers:
        assert int(through.headers["content-length"]) == len(through.content)


def test_most_of_these_requests_succeed(vllm):
    """So that the comparison above compares more than errors."""
    statuses = [
        asked(f"http://127.0.0.1:{vllm.port}", path, body).status_code
        for name, (path, body) in REQUESTS.items()
        if name.startswith(("completion", "chat", "stop", "own", "echo", "two"))
    ]
    assert set(statuses) == {200}


def test_routes_of_the_plugin_and_of_development_are_out_of_reach(vllm, gateway):
    direct = f"http://127.0.0.1:{vllm.port}"
    assert httpx2.get(f"{direct}/v1/aurora/status").status_code == 401
    for path in ("/v1/aurora/status", "/v1/%61urora/status", "/v1/aurora"):
        assert asked(gateway.url, path, None).status_code == 404
    for path in ("/reset_prefix_cache", "/sleep", "/pause", "/collective_rpc", "/update_weights"):
        assert asked(gateway.url, path, {}).status_code == 404


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_ends_its_request_in_vllm(vllm, gateway, streamed):
    asks = {"n": 64, "temperature": 0.5, "ignore_eos": True, "stream": streamed}
    body = json.dumps(PROMPT | asks).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"

    def load() -> int:
        return httpx2.get(f"http://127.0.0.1:{vllm.port}/load", timeout=60).json()["server_load"]

    def page() -> str:
        return asked(gateway.url, "/metrics", None).text

    before, generated = load(), total(page(), GENERATED)
    # It ends though nothing is computed, and what it asked for is not computed afterwards.
    with vllm.frozen():
        port = int(gateway.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 30) as client:
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            _await(lambda: load() == before + 1)
        _await(lambda: load() <= before)
    assert asked(gateway.url, "/v1/completions", PROMPT).status_code == 200
    _await(lambda: total(page(), "vllm:num_requests_running") == 0)
    assert total(page(), GENERATED) - generated < 64 * PROMPT["max_tokens"]
