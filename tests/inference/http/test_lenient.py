"""What the server says it takes back; what changes nothing is ignored."""

from __future__ import annotations

import json
import logging

import httpx2
import openai
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from aurora_inference.http.app import openai_app
from aurora_inference.http.openai_request import ChatBody, CompletionBody

from ..conftest import MODEL

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
COMPLETION = {"model": MODEL, "prompt": "hello", "max_tokens": 4}


@pytest.fixture(autouse=True)
def scripted(worker, tokenizer):
    worker.steps = [tuple(tokenizer.backend_tokenizer.encode("hello world").ids)]


def _rendered(worker, tokenizer) -> str:
    return tokenizer.backend_tokenizer.decode(worker.requests[-1].prompt_tokens)


async def test_an_answer_of_openais_client_is_its_next_message(http, worker, tokenizer):
    answer = (await http.post("/v1/chat/completions", json=CHAT)).json()
    message = openai.types.chat.ChatCompletion.model_validate(answer).choices[0].message
    messages = [*CHAT["messages"], message.model_dump(), {"role": "user", "content": "and?"}]
    again = await http.post("/v1/chat/completions", json=CHAT | {"messages": messages})
    assert again.status_code == 200
    assert "<assistant>hello world\n<user>and?" in _rendered(worker, tokenizer)


@pytest.mark.parametrize(
    "extra",
    [
        {"refusal": None},
        {"audio": None, "function_call": None, "tool_calls": None, "annotations": []},
        {"tool_calls": []},
        {"name": "assistant-1", "reasoning_content": None},
    ],
)
async def test_fields_of_a_message_that_change_nothing(http, extra):
    messages = [{"role": "assistant", "content": "x", **extra}, *CHAT["messages"]]
    answer = await http.post("/v1/chat/completions", json=CHAT | {"messages": messages})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [("/v1/completions", COMPLETION, CompletionBody), ("/v1/chat/completions", CHAT, ChatBody)],
)
async def test_null_is_as_good_as_absent(http, path, body, kind):
    optional = [name for name, field in kind.model_fields.items() if not field.is_required()]
    answer = await http.post(path, json={**dict.fromkeys(optional), **body})
    assert answer.status_code == 200, answer.text


async def test_hints_and_unknown_names_are_ignored_and_logged_once(http, caplog):
    hints = {"reasoning_effort": "low", "verbosity": "low", "prompt_cache_key": "k", "user": 5}
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            body = CHAT | hints | {"new_hint": {"a": 1}, "a text, by mistake": 1}
            assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
    fields = [record.fields for record in caplog.records if "unknown" in record.message]
    assert fields == [{"names": ["new_hint"]}]


async def test_developer_messages_are_the_systems_where_the_template_has_no_such_role(
    http, worker, tokenizer
):
    messages = [{"role": "developer", "content": "be brief"}, *CHAT["messages"]]
    answer = await http.post("/v1/chat/completions", json=CHAT | {"messages": messages})
    assert answer.status_code == 200
    assert _rendered(worker, tokenizer).startswith("<system>be brief\n<user>hello")


async def test_a_text_part_may_carry_more_than_its_text(http, worker, tokenizer):
    part = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    body = CHAT | {"messages": [{"role": "user", "content": [part, part]}]}
    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
    assert "<user>hellohello" in _rendered(worker, tokenizer)


@pytest.mark.parametrize("value", [4_294_967_296, 10**30, 311, -1, 0])
async def test_a_top_k_of_the_whole_vocabulary_keeps_every_token(http, worker, value):
    assert (await http.post("/v1/completions", json=COMPLETION | {"top_k": value})).is_success
    assert worker.requests[0].sampling.top_k == 0


async def test_a_temperature_is_never_so_low_that_logits_overflow(http, worker):
    for temperature in (1e-45, 0.009, 0, 0.5):
        await http.post("/v1/completions", json=COMPLETION | {"temperature": temperature})
    used = [request.sampling.temperature for request in worker.requests]
    assert used == [0.01, 0.01, 0, 0.5]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/health", "/metrics"])
async def test_head_answers_as_get_without_the_body(http, path):
    got, head = await http.get(path), await http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert (await http.head("/v1/completions")).status_code == 405


async def test_a_browser_of_another_origin_may_call(http, gate):
    asks = {
        "origin": "https://chat.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    allowed = await http.options("/v1/chat/completions", headers=asks)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "*")
    answer = await http.post("/v1/completions", json=COMPLETION, headers=asks)
    assert "x-aurora-draft" in answer.headers["access-control-expose-headers"]

    app = openai_app(gate, opt_out_header="x", allowed_origins=["https://own.example"])
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as only_own:
        refused = await only_own.options("/v1/completions", headers=asks)
        assert refused.status_code == 400
        own = await only_own.options(
            "/v1/completions", headers={**asks, "origin": "https://own.example"}
        )
        assert own.headers["access-control-allow-origin"] == "https://own.example"


async def test_the_request_id_comes_back(http):
    given = await http.get("/v1/models", headers={"x-request-id": "trace-7"})
    assert given.headers["x-request-id"] == "trace-7"
    for bad in ("", "a" * 129, "a b"):
        made = await http.get("/v1/models", headers={"x-request-id": bad})
        assert len(made.headers["x-request-id"]) == 32
    ids = [
        (await http.post("/v1/completions", json=COMPLETION, headers={"x-request-id": "same"}))
        for _ in range(2)
    ]
    assert len({answer.json()["id"] for answer in ids}) == 2


async def test_tokenize_and_detokenize_are_inverse(http, tokenizer):
    text = "hello 世界 🙂"
    found = (await http.post("/tokenize", json={"prompt": text, "return_token_strs": True})).json()
    assert found["tokens"] == tokenizer.backend_tokenizer.encode(text).ids
    assert (found["count"], len(found["token_strs"])) == (len(found["tokens"]),) * 2
    back = await http.post("/detokenize", json={"model": MODEL, "tokens": found["tokens"]})
    assert back.json() == {"prompt": text}
    chat = (await http.post("/tokenize", json={"messages": CHAT["messages"]})).json()
    assert tokenizer.backend_tokenizer.decode(chat["tokens"]) == "<user>hello\n<assistant>"
    for bad in ({"tokens": [311]}, {"tokens": [-1]}, {"tokens": [1.5]}):
        assert (await http.post("/detokenize", json=bad)).status_code == 400
    assert (await http.post("/tokenize", json={})).status_code == 400
    assert (await http.post("/tokenize", json={"model": "x", "prompt": "a"})).status_code == 404


async def test_metrics_as_openmetrics(http):
    page = await http.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert page.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in text_string_to_metric_families(page.text)}
    assert {"vllm:time_to_first_token_seconds", "aurora_spec_drafts"} <= names
    assert "vllm:generation_tokens_total" in page.text


async def test_the_version_is_told(http):
    assert set((await http.get("/version")).json()) == {"version"}


async def test_a_failing_engine_is_not_healthy(http, worker):
    assert (await http.get("/health")).status_code == 200
    worker.problem = "the last decode step failed: RuntimeError"
    refused = await http.get("/health")
    assert refused.status_code == 503
    assert "RuntimeError" in json.dumps(refused.json())
