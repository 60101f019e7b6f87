"""The native engine behind the contract, over a scripted runner."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aurora_common.errors import UnavailableError
from aurora_inference.contract import Cursor, DraftReference, Served
from aurora_inference.native import control as module


async def test_it_names_what_it_can_do(serving):
    able = await serving.engine.capabilities()
    assert (able.slots, able.assignments, able.captures) == (2, ("PerRequest",), ("InStep",))
    assert able.draft_kinds == ("standalone",)


async def test_drain_returns_once_every_outcome_is_confirmed(serving, worker):
    log = worker.engine.slots.outcomes
    log.follow("r1")
    sequence = log.admit("stable", stable_digest="", candidate_digest="c", candidate_bps=5000)
    log.end("r1", sequence, "completed", Served(8, 4, time_per_output_token_us=1500))
    draining = asyncio.create_task(serving.engine.drain())
    page = await serving.engine.outcomes("r1", cursor=Cursor("", 0), limit=10)
    assert not draining.done()
    await serving.engine.outcomes("r1", cursor=page.next, limit=10)
    async with asyncio.timeout(10):
        await draining


async def test_storage_that_hangs_holds_up_no_later_draft(serving, worker, monkeypatch):
    monkeypatch.setattr(module, "_LOAD_DEADLINE_SECONDS", 0.1)
    release, loads = threading.Event(), []

    def hangs(folder, digest):
        loads.append(digest)
        release.wait(10)
        raise UnavailableError("read at last")

    monkeypatch.setattr(worker.engine.runner, "load_drafter", hangs)
    first, second = (DraftReference(name, f"sha256:{name * 64}", "file:///") for name in "ab")
    with pytest.raises(UnavailableError, match="not read within"):
        await serving.engine.stage("candidate", first)
    with pytest.raises(UnavailableError, match="an earlier checkpoint is still being read"):
        await serving.engine.stage("candidate", second)
    assert (await serving.engine.status()).candidate is None
    release.set()
    await asyncio.wait({serving.engine._reading})
    with pytest.raises(UnavailableError, match="read at last"):
        await serving.engine.stage("candidate", second)
    assert loads == [first.digest, second.digest]
