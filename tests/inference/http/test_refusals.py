"""Refused requests: status, and the parameter that the error names."""

from __future__ import annotations

import pytest

from aurora_inference.serving.gate import Gate

from ..conftest import CONTEXT_TOKENS, MODEL

COMPLETION = {"model": MODEL, "prompt": "hello", "max_tokens": 4}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.mark.parametrize(
    ("change", "param", "says"),
    [
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": "10"}, "max_tokens", "integer"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"max_tokens": True}, "max_tokens", "integer"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_p": 1.1}, "top_p", "less than or equal to 1"),
        ({"top_k": -2}, "top_k", "-1"),
        ({"seed": 1 << 64}, "seed", "less than"),
        ({"n": 2}, "n", "send 1 or null"),
        ({"n": True}, "n", "send 1 or null"),
        ({"best_of": 3}, "best_of", "send 1 or null"),
        ({"echo": True}, "echo", "send false or null"),
        ({"logprobs": 3}, "logprobs", "send false or null"),
        ({"presence_penalty": 0.5}, "presence_penalty", "send 0 or null"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "send {} or null"),
        ({"stop": ["a"] * 5}, "stop", "up to 4"),
        ({"stop": ""}, "stop", "not empty"),
        ({"stop": [1]}, "stop", "string"),
        ({"stream": "yes"}, "stream", "boolean"),
        ({"stream_options": {"include_usage": 1}}, "stream_options", "include_usage"),
        ({"prompt": ["a", "b"]}, "prompt", "several requests"),
        ({"prompt": 5}, "prompt", "string or a list of token ids"),
        ({"prompt": [1, True]}, "prompt", "token ids"),
        ({"prompt": [100_000]}, "prompt", "token 100000"),
        ({"prompt": [-1]}, "prompt", "token -1"),
        ({"prompt": ""}, "prompt", "no tokens"),
        ({"prompt": []}, "prompt", "no tokens"),
        ({"prompt": None}, "prompt", "string"),
        ({"guided_json": "{}"}, "guided_json", "send null"),
        ({"stop_token_ids": [5]}, "stop_token_ids", "send [] or null"),
        ({"prompt": [0] * (CONTEXT_TOKENS + 1)}, "prompt", "201 elements"),
        ({"model": 5}, "model", "string"),
    ],
)
async def test_refused_completion_parameter_is_named(http, worker, change, param, says):
    answer = await http.post("/v1/completions", json=COMPLETION | change)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]
    assert not worker.requests


@pytest.mark.parametrize(
    ("change", "param", "says"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "user"}]}, "messages", "required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "'user'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages",
            "type 'text'",
        ),
        ({"tools": [{"type": "function"}]}, "tools", "send [] or null"),
        ({"response_format": {"type": "json_object"}}, "response_format", '"text"'),
        ({"logprobs": True}, "logprobs", "send false or null"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "greater than"),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "a"}]}]},
            "messages",
            "tool_calls",
        ),
    ],
)
async def test_refused_chat_parameter_is_named(http, worker, change, param, says):
    answer = await http.post("/v1/chat/completions", json=CHAT | change)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == param
    assert says in error["message"]
    assert not worker.requests


async def test_all_problems_are_reported_at_once(http):
    answer = await http.post("/v1/completions", json={"model": MODEL, "max_tokens": 0, "top_p": 2})
    message = answer.json()["error"]["message"]
    assert all(name in message for name in ("prompt", "max_tokens", "top_p"))


async def test_prompt_over_the_context(http, worker):
    body = COMPLETION | {"prompt": [5] * CONTEXT_TOKENS, "max_tokens": 1}
    answer = await http.post("/v1/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert str(CONTEXT_TOKENS) in error["message"]
    fits = await http.post(
        "/v1/chat/completions",
        json=CHAT | {"messages": [{"role": "user", "content": "z" * 500}]},
    )
    assert (fits.status_code, fits.json()["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_unknown_model(http, path):
    body = (COMPLETION if path == "/v1/completions" else CHAT) | {"model": "gpt-9"}
    answer = await http.post(path, json=body)
    error = answer.json()["error"]
    assert answer.status_code == 404
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert MODEL in error["message"]
    assert (await http.get("/v1/models/gpt-9")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"[]", b"5", b"\xff", b'{"model": "tiny", "prompt": "\\ud800"}', b"[" * 100_000],
)
async def test_malformed_bodies(http, worker, body):
    answer = await http.post(
        "/v1/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert not worker.requests


async def test_a_body_without_its_type_is_refused(http):
    answer = await http.post("/v1/completions", content=b'{"model": "tiny"}')
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]


async def test_a_body_too_large(http):
    answer = await http.post(
        "/v1/completions",
        content=b'"' + b"a" * (2 << 20) + b'"',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
    assert "context" in answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_full_queue(http, worker, stream):
    worker.full = True
    answer = await http.post("/v1/completions", json=COMPLETION | {"stream": stream})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["type"] == "rate_limit_error"


async def test_a_tenant_too_long(http):
    headers = {"x-aurora-tenant": "t" * 200}
    answer = await http.post("/v1/completions", json=COMPLETION, headers=headers)
    assert answer.status_code == 400
    assert "tenant" in answer.json()["error"]["message"]


async def test_chat_without_a_template(http, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    answer = await http.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "chat_template_missing"
    assert "/v1/completions" in answer.json()["error"]["message"]


async def test_unknown_path_and_method(http):
    for answer in (await http.get("/v1/nothing"), await http.get("/v1/completions")):
        assert answer.status_code in (404, 405)
        assert "is not served here" in answer.json()["error"]["message"]


class TestBeforeAndAfterServing:
    @pytest.fixture
    def gate(self) -> Gate:
        return Gate()

    async def test_nothing_is_served_while_loading(self, http):
        for answer in (
            await http.get("/health"),
            await http.get("/v1/models"),
            await http.post("/v1/completions", json=COMPLETION),
        ):
            assert answer.status_code == 503
            assert "loading" in answer.json()["error"]["message"]
            assert answer.headers["retry-after"] == "1"

    async def test_healthy_only_between_open_and_close(self, http, gate, serving):
        gate.open(serving)
        assert (await http.get("/health")).status_code == 200
        gate.close()
        assert (await http.get("/health")).status_code == 503
