"""A vLLM on two nodes: a draft changes on both between the same two steps."""

from __future__ import annotations

_TOKENS = 96


async def test_drafts_change_on_every_node_at_once(two_nodes, models, plain):
    shares = {}
    async with two_nodes.client() as client:
        for draft in (models.stranger, models.cousin, models.twin):
            await client.only(draft)
            found = await client.complete(plain.prompts[0], _TOKENS, cache_salt=draft.name)
            # Half of a draft beside half of another would only propose what is refused.
            accepted, drafted = map(sum, zip(*found.steps, strict=True))
            shares[draft.name] = accepted / drafted
            assert found.tokens == plain.outputs[0][:_TOKENS]

    assert shares[models.stranger.name] < shares[models.cousin.name] < shares[models.twin.name]
    assert shares[models.twin.name] > 0.9
