"""The native engine behind the contract, over a scripted runner."""

from __future__ import annotations

import asyncio

from aurora_inference.contract import Cursor, Outcome


async def test_it_names_what_it_can_do(serving):
    able = await serving.engine.capabilities()
    assert (able.slots, able.assignments, able.captures) == (2, ("PerRequest",), ("InStep",))
    assert able.draft_kinds == ("standalone",)


async def test_drain_returns_once_every_outcome_is_confirmed(serving, worker):
    log = worker.engine.slots.outcomes
    log.follow("r1")
    log.record("r1", Outcome("stable", 5000, 8, 4, False, 1500))
    draining = asyncio.create_task(serving.engine.drain())
    page = await serving.engine.outcomes("r1", cursor=Cursor("", 0), limit=10)
    assert not draining.done()
    await serving.engine.outcomes("r1", cursor=page.next, limit=10)
    async with asyncio.timeout(10):
        await draining
