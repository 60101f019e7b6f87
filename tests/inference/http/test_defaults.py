"""What a request leaves out is as the model's folder says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aurora_inference.contract import Sampling

from ..conftest import CONTEXT_TOKENS, MODEL

COMPLETION = {"prompt": "hello"}
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def ask(http, worker, serving):
    """ask(path, body): the engine's request, with a model of these defaults."""
    serving.text.model = replace(
        serving.text.model, sampling=Sampling(0.6, 0.95, 20), max_tokens=30
    )
    worker.steps = [(5,)]

    async def asked(body: dict):
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        answer = await http.post(path, json={"model": MODEL, **body})
        assert answer.status_code == 200, answer.text
        return worker.requests[-1]

    return asked


@pytest.mark.parametrize("body", [COMPLETION, CHAT])
async def test_absent_and_null_values_are_the_models(ask, body):
    nulls = {"temperature": None, "top_p": None, "top_k": None}
    for given in (body, body | nulls):
        assert (await ask(given)).sampling == Sampling(0.6, 0.95, 20)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 0}, Sampling(0.0, 0.95, 20)),
        ({"temperature": 1}, Sampling(1.0, 0.95, 20)),
        ({"top_p": 1}, Sampling(0.6, 1.0, 20)),
        ({"top_k": 0}, Sampling(0.6, 0.95, 0)),
        ({"top_k": -1, "seed": 4}, Sampling(0.6, 0.95, 0, 4)),
    ],
)
async def test_each_value_of_a_request_goes_first(ask, given, expected):
    assert (await ask(COMPLETION | given)).sampling == expected


async def test_the_models_max_tokens_bound_only_requests_without_their_own(ask):
    assert (await ask(CHAT)).max_tokens == 30
    assert (await ask(CHAT | {"max_tokens": 50})).max_tokens == 50
    # OpenAI's default for completions, as in vLLM.
    assert (await ask(COMPLETION)).max_tokens == 16


async def test_the_context_bounds_the_models_max_tokens(ask, serving):
    serving.text.model = replace(serving.text.model, max_tokens=10 * CONTEXT_TOKENS)
    request = await ask(CHAT)
    assert request.max_tokens == CONTEXT_TOKENS - len(request.prompt_tokens)
