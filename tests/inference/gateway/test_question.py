"""What is added to a client's body, and what is left alone."""

from __future__ import annotations

import json

import pytest

from aurora_inference.gateway.question import CHAT, COMPLETIONS, Client, question

CLIENT = Client(key="k1", tenant="t", domain="d", record=True, capture=False)
PROMPT = {"model": "tiny", "prompt": "hello"}


def asked(body, path=COMPLETIONS, client=CLIENT):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return question(path, raw, client, base_models=frozenset({"tiny"}))


def added(body, path=COMPLETIONS, client=CLIENT) -> dict:
    """The keys that the engine reads otherwise than the client wrote them."""
    found = asked(body, path, client)
    content = json.loads(found.body)
    return {key: value for key, value in content.items() if key not in body or body[key] != value}


def test_a_plain_request_gets_a_key_and_its_token_ids():
    assert added(PROMPT) == {"vllm_xargs": {"aurora_key": "k1"}, "return_token_ids": True}


def test_the_clients_bytes_stay_as_they_are():
    raw = (
        b' {"prompt" : "h\\u00e9", "seed":12345678901234567890123, "temperature": 1e-7 , "x":NaN}\n'
    )
    found = asked(raw)
    assert found.body.startswith(raw.rstrip()[:-1])
    assert json.loads(found.body)["seed"] == 12345678901234567890123


def test_a_stream_gets_the_chunk_with_the_usage():
    found = added(PROMPT | {"stream": True})
    assert found["stream_options"] == {"include_usage": True, "continuous_usage_stats": False}
    assert asked(PROMPT | {"stream": True}).hide_usage


def test_a_client_that_asks_for_usage_keeps_its_options():
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = PROMPT | {"stream": True, "stream_options": options}
    assert "stream_options" not in added(body)
    assert not asked(body).hide_usage


def test_options_without_usage_stay_without_its_effects():
    body = PROMPT | {"stream": True, "stream_options": {"continuous_usage_stats": True, "x": 1}}
    assert added(body)["stream_options"] == {
        "continuous_usage_stats": False,
        "x": 1,
        "include_usage": True,
    }


def test_a_client_that_asks_for_token_ids_keeps_them():
    found = asked(PROMPT | {"return_token_ids": True})
    assert found.request.record
    assert not found.hide_token_ids


def test_the_clients_own_arguments_stay_but_it_cannot_choose_a_key():
    body = PROMPT | {"vllm_xargs": {"a": 1, "aurora_key": "another's", "aurora_capture": 1}}
    assert added(body)["vllm_xargs"] == {"a": 1, "aurora_key": "k1"}


def test_a_capture_is_asked_for_only_of_what_is_recorded():
    capturing = Client("k1", "", "", record=True, capture=True)
    assert added(PROMPT, client=capturing)["vllm_xargs"]["aurora_capture"] == 1
    refusing = Client("k1", "", "", record=False, capture=True)
    assert added(PROMPT, client=refusing) == {"vllm_xargs": {"aurora_key": "k1"}}


@pytest.mark.parametrize(
    "body",
    [
        PROMPT | {"echo": True},
        PROMPT | {"model": "an-adapter"},
        PROMPT | {"prompt_embeds": "AAAA"},
    ],
)
def test_what_token_ids_do_not_describe_is_not_recorded(body):
    found = asked(body)
    assert (found.request.record, found.hide_token_ids) == (False, False)
    assert "return_token_ids" not in json.loads(found.body)


def test_pictures_are_not_recorded():
    def chat(kind):
        content = [{"type": "text", "text": "what is"}, {"type": kind, kind: "…"}]
        return asked({"messages": [{"role": "user", "content": content}]}, CHAT)

    assert chat("text").request.record
    assert not chat("image_url").request.record


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[1]",
        b"{}",
        b'{"prompt": "cut',
        b"\xff\xfe{\x00}\x00",
        b'{"prompt": ' + b"[" * 100_000,
        PROMPT | {"n": 2},
        PROMPT | {"n": "1"},
        PROMPT | {"n": True},
        PROMPT | {"best_of": 3},
        PROMPT | {"use_beam_search": True},
        PROMPT | {"prompt": ["a", "b"]},
        PROMPT | {"prompt": [[1, 2], [3]]},
        PROMPT | {"prompt": []},
        PROMPT | {"stream": "yes"},
        PROMPT | {"stream": 1},
        PROMPT | {"stream_options": "x"},
        PROMPT | {"stream_options": {"include_usage": "yes"}},
        PROMPT | {"vllm_xargs": [1]},
        PROMPT | {"return_token_ids": 1},
    ],
)
def test_what_the_engine_may_refuse_or_reports_nothing_about_is_left_alone(body):
    assert asked(body) is None


@pytest.mark.parametrize("prompt", [["a"], [1, 2, 3], [[1, 2]], [7]])
def test_one_prompt_in_a_list_is_one_prompt(prompt):
    assert asked(PROMPT | {"prompt": prompt}) is not None


def test_sampling_is_what_the_client_chose():
    body = PROMPT | {"temperature": 0, "top_p": 0.5, "top_k": 20, "seed": -1, "max_tokens": 9}
    request = asked(body).request
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0, 0.5, 20, -1)
    assert (request.id, request.max_tokens, request.tenant, request.domain) == ("k1", 9, "t", "d")


@pytest.mark.parametrize("value", [None, "hot", 1e300, 10**400, True])
def test_sampling_that_the_engine_refuses_breaks_nothing(value):
    body = PROMPT | {"temperature": value, "top_k": value, "max_tokens": value}
    assert asked(body).request.sampling.temperature == 1.0
