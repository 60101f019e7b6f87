"""What the worker captures: the target's distributions, as vLLM itself reports them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest


async def captured(client, key: str) -> tuple[dict[str, Any], dict[str, np.ndarray], int]:
    """The captured request with this key, once it has ended, and the number of its batch."""
    for _ in range(50):
        header, body = await client.capture()
        if header["requests"]:
            break
        await asyncio.sleep(0.05)
    offset = 0
    for request in header["requests"]:
        count, k = request["tokens"], request["k"]
        drafted = sum(drafted for drafted, _ in request["steps"])
        arrays = {}
        for name, dtype, shape in (
            ("ids", "<u4", (count, k)),
            ("log_probs", "<f2", (count, k)),
            ("tail", "<f2", (count,)),
            ("output", "<u4", (count,)),
            ("drafted", "<u4", (drafted,)),
        ):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays[name] = np.frombuffer(body[offset : offset + size], dtype).reshape(shape)
            offset += size
        if request["key"] == key:
            assert offset <= len(body)
            return request, arrays, header["batch"]
    raise AssertionError(f"{key} is not among {header}")


async def drained(client) -> None:
    header, _ = await client.capture()
    while header["requests"]:
        header, _ = await client.capture(ack=header["batch"])


async def test_it_is_the_targets_distribution_at_each_output_token(vllm, models, plain):
    async with vllm.client() as client:
        await client.only(models.cousin)
        await drained(client)
        body = {
            "model": "tiny",
            "prompt": plain.prompts[0],
            "max_tokens": 40,
            "temperature": 0.0,
            "ignore_eos": True,
            "logprobs": 64,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
            "vllm_xargs": {"aurora_key": "values", "aurora_capture": 1},
        }
        async with client.session.post("/v1/completions", json=body) as answer:
            content = await answer.json()
            assert answer.status == 200, content
        _, arrays, _ = await captured(client, "values")

    choice = content["choices"][0]
    count = len(choice["token_ids"])
    assert arrays["output"][:count].tolist() == choice["token_ids"] == plain.outputs[0][:40]
    for row, reported in enumerate(choice["logprobs"]["top_logprobs"]):
        expected = {int(name.removeprefix("token_id:")): value for name, value in reported.items()}
        found = dict(zip(arrays["ids"][row].tolist(), arrays["log_probs"][row], strict=True))
        shared = found.keys() & expected.keys()
        # vLLM adds the token that was chosen; the last ones may change places in a tie.
        assert len(shared) >= 63
        assert [found[token] for token in shared] == pytest.approx(
            [expected[token] for token in shared], rel=2**-11, abs=2e-5
        )
        mass = np.exp(arrays["log_probs"][row].astype(np.float64)).sum() + arrays["tail"][row]
        assert mass == pytest.approx(1.0, abs=2e-3)


async def test_it_says_what_was_drafted_and_rejected(vllm, models, plain):
    async with vllm.client() as client:
        await client.only(models.cousin)
        await drained(client)
        keyed = {"aurora_key": "steps", "aurora_capture": 1}
        completion = await client.complete(plain.prompts[1], 64, vllm_xargs=keyed)
        request, arrays, _ = await captured(client, "steps")

    assert [(accepted, drafted) for drafted, accepted in request["steps"]] == completion.steps
    assert any(accepted < drafted for accepted, drafted in completion.steps)
    output, start = arrays["output"].tolist(), 1  # the first token is the prompt's
    drafts = arrays["drafted"].tolist()
    for drafted, accepted in request["steps"]:
        here, drafts = drafts[:drafted], drafts[drafted:]
        assert here[:accepted] == output[start : start + accepted]
        if accepted < drafted:
            assert here[accepted] != output[start + accepted]
        start += accepted + 1
    assert output[:64] == completion.tokens


async def test_a_batch_is_handed_out_until_it_is_acknowledged(vllm, models, plain):
    async with vllm.client() as client:
        await client.only(models.twin)
        await drained(client)
        keyed = {"aurora_key": "ack", "aurora_capture": 1}
        await client.complete(plain.prompts[2], 8, vllm_xargs=keyed)
        _, _, batch = await captured(client, "ack")
        again, _ = await client.capture(ack=batch - 1)
        then, _ = await client.capture(ack=batch)
        status = await client.ok("status")

    assert again["batch"] == batch
    assert then == {"batch": 0, "more": False, "dropped": 0, "requests": []}
    assert status["capture"]["pending_bytes"] == 0


async def test_only_what_asks_for_it_is_captured(vllm, models, plain):
    async with vllm.client() as client:
        await client.only(models.twin)
        await drained(client)
        await client.complete(plain.prompts[3], 8)
        await client.complete(plain.prompts[3], 8, vllm_xargs={"aurora_key": "counted"})
        keyed = {"aurora_key": "captured", "aurora_capture": 1}
        await client.complete(plain.prompts[3], 8, vllm_xargs=keyed)
        await captured(client, "captured")
        header, _ = await client.capture()

    assert [request["key"] for request in header["requests"]] == ["captured"]


async def test_prompts_in_pieces_yield_rows_of_output_alone(vllm, models):
    """A long prompt among others is computed in several steps, which emit nothing."""
    prompts = [[2 + (7 * number + each) % 250 for each in range(400)] for number in range(12)]
    async with vllm.client() as client:
        await client.only(models.twin)
        await drained(client)

        async def complete(number: int):
            keyed = {"aurora_key": f"piece-{number}", "aurora_capture": 1}
            return await client.complete(prompts[number], 16, vllm_xargs=keyed)

        completions = await asyncio.gather(*(complete(number) for number in range(12)))
        for number, completion in enumerate(completions):
            _, arrays, _ = await captured(client, f"piece-{number}")
            assert arrays["output"][:16].tolist() == completion.tokens
