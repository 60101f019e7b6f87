"""OpenAI's endpoints over a scripted engine: bodies, streams, text, headers."""

from __future__ import annotations

import json

import pytest

from ..conftest import CONTEXT_TOKENS, MODEL, events


@pytest.fixture
def ask(http):
    """Posts a completion with a few parameters changed."""

    async def post(headers=None, **changes):
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 20, **changes}
        return await http.post("/v1/completions", json=body, headers=headers or {})

    return post


def _script(worker, tokenizer, text: str, size: int = 2) -> list[int]:
    tokens = tokenizer.backend_tokenizer.encode(text).ids
    worker.steps = [tuple(tokens[i : i + size]) for i in range(0, len(tokens), size)]
    return tokens


async def test_whole_answer_has_text_usage_and_draft(ask, worker, tokenizer):
    tokens = _script(worker, tokenizer, "hello 世界 🙂")
    answer = await ask()
    body = answer.json()
    assert answer.status_code == 200
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "logprobs": None, "finish_reason": "length", "text": "hello 世界 🙂"}
    ]
    prompt = worker.requests[0].prompt_tokens
    assert body["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(tokens),
        "total_tokens": len(prompt) + len(tokens),
    }
    assert body["aurora"] == {
        "draft": "ckpt-7",
        "draft_digest": "sha256:" + "7" * 64,
        "arm": "stable",
        "drafted_tokens": 12,
        "accepted_tokens": 6,
        "ngram_drafted_tokens": 5,
        "ngram_accepted_tokens": 2,
        "acceptance_rate": 0.5,
        "mean_acceptance_length": 3.0,
    }
    assert answer.headers["x-aurora-draft"] == "ckpt-7"
    assert answer.headers["x-aurora-acceptance"] == "0.5000"


async def test_stream_gives_the_same_text_then_done(ask, worker, tokenizer):
    tokens = _script(worker, tokenizer, "hello 世界 🙂")
    answer = await ask(stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer.text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "hello 世界 🙂"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "length"
    assert chunks[-1]["aurora"]["draft"] == "ckpt-7"
    assert "usage" not in chunks[-1]
    assert len(chunks) <= len(tokens)


async def test_stream_with_usage_ends_with_a_chunk_that_has_it(ask, worker, tokenizer):
    tokens = _script(worker, tokenizer, "hello world")
    chunks = events((await ask(stream=True, stream_options={"include_usage": True})).text)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == len(tokens)
    assert chunks[-1]["aurora"]["accepted_tokens"] == 6
    assert all("usage" not in chunk for chunk in chunks[:-1])


async def test_continuous_usage_counts_the_tokens_so_far(ask, worker, tokenizer):
    tokens = _script(worker, tokenizer, "hello world", size=1)
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events((await ask(stream=True, stream_options=options)).text)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == len(tokens)


@pytest.mark.parametrize("size", [1, 2, 50])
@pytest.mark.parametrize("stream", [True, False])
async def test_stop_string_cuts_the_text_and_ends_the_request(ask, worker, tokenizer, stream, size):
    _script(worker, tokenizer, "hello STOP words here and more", size=size)
    until_stop = tokenizer.backend_tokenizer.encode("hello STOP").ids
    answer = await ask(stop=["nothing", "TOP"], stream=stream, stream_options=_usage(stream))
    if stream:
        chunks = events(answer.text)
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1])
        reason, usage = chunks[-2]["choices"][0]["finish_reason"], chunks[-1]["usage"]
    else:
        choice, usage = answer.json()["choices"][0], answer.json()["usage"]
        text, reason = choice["text"], choice["finish_reason"]
    assert text == "hello S"
    assert reason == "stop"
    assert usage["completion_tokens"] == len(until_stop)


def _usage(stream: bool):
    return {"include_usage": True} if stream else None


async def test_stop_string_cancels_a_request_that_would_go_on(ask, worker, tokenizer):
    _script(worker, tokenizer, "hello STOP words")
    worker.finish = None
    answer = await ask(stop="STOP")
    assert answer.json()["choices"][0]["text"] == "hello "
    assert answer.json()["aurora"]["drafted_tokens"] == 12
    assert worker.cancelled.is_set()
    assert worker.answered


async def test_stop_token_has_no_text_and_counts(ask, worker, tokenizer):
    tokens = [
        *_script(worker, tokenizer, "hello"),
        tokenizer.backend_tokenizer.token_to_id("world"),
    ]
    worker.steps, worker.finish = [tuple(tokens)], "stop"
    body = (await ask()).json()
    assert body["choices"][0]["text"] == "hello"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len(tokens)


async def test_parameters_reach_the_engine(ask, worker, tokenizer):
    _script(worker, tokenizer, "hello")
    headers = {"x-aurora-tenant": "acme", "x-aurora-domain": "sql"}
    await ask(headers, temperature=0.5, top_p=0.9, top_k=-1, seed=-3, ignore_eos=True)
    request = worker.requests[0]
    assert (request.tenant, request.domain, request.ignore_eos) == ("acme", "sql", True)
    assert request.max_tokens == 20
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p) == (0.5, 0.9)
    assert (sampling.top_k, sampling.seed) == (0, -3)
    assert request.record


@pytest.mark.parametrize(
    ("value", "recorded"),
    [("1", False), ("true", False), ("yes", False), ("0", True), ("False", True), ("", True)],
)
async def test_opt_out_header_disables_recording(ask, worker, tokenizer, value, recorded):
    _script(worker, tokenizer, "hello")
    await ask({"x-aurora-no-train": value})
    assert worker.requests[0].record is recorded


async def test_prompt_may_be_tokens_or_a_list_of_one(ask, worker, tokenizer):
    _script(worker, tokenizer, "hello")
    for prompt in ([5, 6], [[5, 6]], ["hello"]):
        assert (await ask(prompt=prompt)).status_code == 200
    assert [request.prompt_tokens for request in worker.requests[:2]] == [(5, 6), (5, 6)]


async def test_neutral_and_harmless_parameters_are_accepted(ask, worker, tokenizer):
    _script(worker, tokenizer, "hello")
    answer = await ask(
        n=1,
        best_of=1,
        echo=False,
        suffix=None,
        presence_penalty=0.0,
        frequency_penalty=0,
        repetition_penalty=1.0,
        logit_bias={},
        logprobs=None,
        user="somebody",
        store=True,
        metadata={"a": "b"},
        stop=None,
        seed=None,
        temperature=None,
    )
    assert answer.status_code == 200, answer.text


async def test_chat_uses_the_template(http, worker, tokenizer):
    _script(worker, tokenizer, "hello world")
    body = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "test"},
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        ],
    }
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.json()["choices"][0]["message"]["content"] == "hello world"
    request = worker.requests[0]
    decoded = tokenizer.backend_tokenizer.decode(list(request.prompt_tokens))
    assert decoded == "<system>test\n<user>hello\n<assistant>"
    assert request.max_tokens == CONTEXT_TOKENS - len(request.prompt_tokens)

    chunks = events((await http.post("/v1/chat/completions", json=body | {"stream": True})).text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(texts) == "hello world"
    assert chunks[-1]["aurora"]["arm"] == "stable"


async def test_models_lists_the_one_served(http):
    listed = (await http.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == [MODEL]
    assert listed["data"][0]["max_model_len"] == CONTEXT_TOKENS
    assert (await http.get(f"/v1/models/{MODEL}")).json() == listed["data"][0]


async def test_metrics_have_our_names_and_vllms(http, ask, worker, tokenizer):
    tokens = _script(worker, tokenizer, "hello world")
    await ask()
    lines = (await http.get("/metrics")).text.splitlines()
    for line in (
        'aurora_spec_drafts_total{arm="stable"} 5.0',
        'aurora_spec_draft_tokens_total{arm="stable"} 20.0',
        'aurora_spec_accepted_tokens_total{arm="stable",position="0"} 5.0',
        "aurora_ngram_drafts_total 3.0",
        "aurora_ngram_draft_tokens_total 9.0",
        'aurora_ngram_accepted_tokens_total{position="1"} 1.0',
        'vllm:spec_decode_num_drafts_total{model_name="tiny"} 8.0',
        'vllm:spec_decode_num_draft_tokens_total{model_name="tiny"} 29.0',
        'vllm:spec_decode_num_accepted_tokens_total{model_name="tiny"} 13.0',
        'vllm:spec_decode_num_accepted_tokens_per_pos_total{model_name="tiny",position="2"} 2.0',
        'vllm:num_requests_running{model_name="tiny"} 1.0',
        'vllm:num_requests_waiting{model_name="tiny"} 2.0',
        "aurora_running_requests 1.0",
        "aurora_waiting_requests 2.0",
        'vllm:time_to_first_token_seconds_count{model_name="tiny"} 1.0',
        'vllm:e2e_request_latency_seconds_count{model_name="tiny"} 1.0',
        f'vllm:generation_tokens_total{{model_name="tiny"}} {float(len(tokens))}',
        "aurora_trajectories_dropped_total 0.0",
    ):
        assert line in lines


async def test_an_engine_failure_discloses_no_details(ask, worker):
    worker.steps, worker.finish = [(5,)], "error"
    answer = await ask()
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    chunks = events((await ask(stream=True)).text)
    assert chunks[-1]["error"]["type"] == "server_error"
    assert json.dumps(chunks[-1]).count("Traceback") == 0
