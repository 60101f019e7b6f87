"""Drafts change under load: no request fails, and none says anything else."""

from __future__ import annotations

import asyncio

from stock.counters import generates
from stock.server import gathered


async def test_requests_go_on_while_drafts_are_staged_and_activated(vllm, models, plain):
    drafts = [models.cousin, models.stranger, models.twin]
    done = asyncio.Event()
    outputs: list[tuple[int, list[int]]] = []

    async def stream(client, number: int) -> None:
        while not done.is_set():
            completion = await client.complete(plain.prompts[number], 96)
            outputs.append((number, completion.tokens))
            number = (number + 8) % len(plain.prompts)

    async def switch(client) -> None:
        try:
            for draft in drafts * 3:
                staged = await client.stage(draft)
                assert staged["resident"]
                former = (await client.ok("status"))["live"]["digest"]
                receipt = await client.ok("activate", digest=draft.digest, reset=True)
                assert receipt["live"] == {"digest": draft.digest, "name": draft.name}
                for digest in (former, draft.digest) * 2:
                    await client.ok("activate", digest=digest, reset=True)
                    await asyncio.sleep(0.02)
                await client.ok("unstage", digest=former)
        finally:
            done.set()

    async with vllm.client() as client:
        await client.only(models.twin)
        await gathered(switch(client), *(stream(client, number) for number in range(8)))

    assert len(outputs) >= 8
    assert [number for number, tokens in outputs if tokens != plain.outputs[number][:96]] == []


async def test_the_live_draft_is_the_one_that_proposes(vllm, models, plain):
    async with vllm.client() as client:
        shares = {}
        for draft in (models.twin, models.cousin, models.stranger, models.twin):
            await client.only(draft)
            completion = await client.complete(plain.prompts[0], 96, cache_salt=draft.name)
            accepted, drafted = map(sum, zip(*completion.steps, strict=True))
            shares[draft.name] = accepted / drafted

    assert shares[models.twin.name] > 0.9
    assert shares[models.stranger.name] < 0.1
    assert shares[models.stranger.name] < shares[models.cousin.name] < shares[models.twin.name]


async def test_an_activation_may_be_repeated(vllm, models):
    async with vllm.client() as client:
        await client.only(models.twin)

        again = await client.ok("activate", digest=models.twin.digest)
        staged = await client.stage(models.twin)

    assert again == {
        "flip_us": 0,
        "live": {"digest": models.twin.digest, "name": models.twin.name},
        "steps": {},
    }
    assert staged["resident"]


async def test_receipts_attribute_each_verify_step_to_the_draft_that_proposed(vllm, models, plain):
    """The twin's tokens are all accepted and hardly any of the stranger's: the steps tell."""

    async def switch(client):
        await generates(client.metrics, 8 * 40)
        return await client.ok("activate", digest=models.stranger.digest)

    async def follow(client, number: int):
        key = {"aurora_key": f"follow-{number}"}
        return await client.complete(plain.prompts[number], 400, vllm_xargs=key)

    async with vllm.client() as client:
        await client.only(models.twin)
        await client.stage(models.stranger)
        receipt, *followed = await gathered(
            switch(client), *(follow(client, number) for number in range(8))
        )

    assert receipt["steps"].keys() == {f"follow-{number}" for number in range(8)}
    for number, completion in enumerate(followed):
        former = receipt["steps"][f"follow-{number}"]
        assert 0 < former < len(completion.steps)
        assert all(accepted == drafted for accepted, drafted in completion.steps[:former])
        assert all(accepted < drafted for accepted, drafted in completion.steps[former:])


async def test_a_draft_of_another_lineage_needs_a_reset(vllm, models):
    async with vllm.client() as client:
        await client.only(models.twin)
        await client.stage(models.foreign)

        status, refused = await client.call("activate", digest=models.foreign.digest)
        live = (await client.ok("status"))["live"]["digest"]
        receipt = await client.ok("activate", digest=models.foreign.digest, reset=True)

    assert (status, refused["error"]["code"]) == (409, "other_lineage")
    assert live == models.twin.digest
    assert receipt["live"]["digest"] == models.foreign.digest


async def test_the_place_beside_the_live_draft_holds_one(vllm, models):
    async with vllm.client() as client:
        await client.only(models.twin)
        await client.stage(models.cousin)

        occupied = await client.call(
            "stage", digest=models.foreign.digest, name="f", path=models.foreign.name
        )
        live = await client.call("unstage", digest=models.twin.digest)
        await client.ok("unstage", digest=models.cousin.digest)
        gone = await client.call("activate", digest=models.cousin.digest)

    assert (occupied[0], occupied[1]["error"]["code"]) == (409, "occupied")
    assert models.cousin.digest in occupied[1]["error"]["message"]
    assert (live[0], live[1]["error"]["code"]) == (409, "live")
    assert (gone[0], gone[1]["error"]["code"]) == (404, "not_staged")
