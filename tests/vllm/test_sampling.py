"""Sampled requests on a CPU: right, and without effect on greedy ones beside them."""

from __future__ import annotations

from stock.server import gathered


async def test_sampled_requests_do_not_change_greedy_neighbours(vllm, models, plain):
    async with vllm.client() as client:
        await client.only(models.cousin)
        sampled = [
            client.complete(plain.prompts[number], 96, temperature=0.9, top_p=0.9, seed=number)
            for number in range(4)
        ]
        greedy = [client.complete(plain.prompts[number], 96) for number in range(8)]
        completions = await gathered(*sampled, *greedy)

    assert [each.tokens for each in completions[4:]] == [out[:96] for out in plain.outputs[:8]]


async def test_a_temperature_matters(vllm, models, plain):
    """As good as none gives the greedy text, a high one gives different texts by seed."""
    async with vllm.client() as client:
        await client.only(models.twin)
        cold, one, other = await gathered(
            client.complete(plain.prompts[0], 48, temperature=0.01, seed=1),
            client.complete(plain.prompts[0], 48, temperature=2.0, seed=1),
            client.complete(plain.prompts[0], 48, temperature=2.0, seed=2),
        )

    assert cold.tokens == plain.outputs[0][:48]
    assert one.tokens != other.tokens
    assert cold.tokens not in (one.tokens, other.tokens)
