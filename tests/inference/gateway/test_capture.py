"""Captures as the plugin packs them, joined to the answers."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from aurora_common.errors import UnavailableError
from aurora_inference.contract import Request, Sampling, SpeculationReport
from aurora_inference.gateway import capture as module
from aurora_inference.gateway.capture import Captures, unpacked
from aurora_inference.trajectory.completion import Completion

K = 4


def packed(number, *requests, more=False):
    """`requests`: key and output tokens."""
    headers, bodies = [], b""
    for key, tokens in requests:
        count = len(tokens)
        headers.append({"key": key, "k": K, "tokens": count, "steps": [[2, 1], [1, 0]]})
        bodies += np.arange(count * K, dtype="<u4").tobytes()
        bodies += np.full(count * K, -1.5, dtype="<f2").tobytes()
        bodies += np.full(count, 0.25, dtype="<f2").tobytes()
        bodies += np.array(tokens, dtype="<u4").tobytes()
        bodies += np.array([7, 8, 9], dtype="<u4").tobytes()
    header = json.dumps({"batch": number, "more": more, "dropped": 0, "requests": headers}).encode()
    return len(header).to_bytes(4, "little") + header + bodies


def completion(key, tokens):
    request = Request(key, (1, 2), 9, Sampling())
    report = SpeculationReport("s", "sha256:s", "stable", 0, 0, 0)
    return Completion(request, tuple(tokens), report, (), None)


class Batches:
    def __init__(self, *payloads):
        self.payloads = list(payloads)
        self.acknowledged = []

    async def capture(self, *, max_bytes, acknowledge):
        self.acknowledged.append(acknowledge)
        found = self.payloads.pop(0) if self.payloads else packed(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.005)


async def joined(captures, recorded, count):
    task = asyncio.create_task(captures.run())
    async with asyncio.timeout(10):
        while len(recorded) < count:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.002)
    task.cancel()


def test_arrays_come_out_as_they_went_in():
    batch = unpacked(packed(3, ("a", [5, 6]), ("b", [9]), more=True))
    assert (batch.number, batch.more, [one.key for one in batch.captures]) == (3, True, ["a", "b"])
    first, second = batch.captures
    assert first.distributions.top_ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert first.distributions.top_log_probs.shape == (2, K)
    assert second.output_tokens.tolist() == [9]
    assert second.distributions.tail_mass.tolist() == [0.25]


@pytest.mark.parametrize("payload", [b"", b"\x10\0\0\0{}", packed(1, ("a", [5]))[:-40], b"\0" * 99])
def test_other_payloads_are_refused(payload):
    with pytest.raises(UnavailableError, match="cannot be read"):
        unpacked(payload)


async def test_answers_get_the_distributions_of_their_tokens(quick):
    recorded = []
    plugin = Batches(packed(1, ("other", [1]), ("a", [5, 6, 7]), more=True), packed(2, ("b", [9])))
    captures = Captures(plugin, recorded.append)
    for key, tokens in (("a", [5, 6]), ("b", [9])):
        captures.wait_for(completion(key, tokens))
    await joined(captures, recorded, 2)
    assert [len(one.distributions.tail_mass) for one in recorded] == [2, 1]
    assert plugin.acknowledged[:2] == [0, 1]
    assert captures.missing == 0


async def test_an_answer_whose_capture_is_of_other_tokens_is_recorded_without(quick):
    recorded = []
    captures = Captures(Batches(packed(1, ("a", [5, 6]))), recorded.append)
    captures.wait_for(completion("a", [5, 7]))
    await joined(captures, recorded, 1)
    assert (recorded[0].distributions, captures.missing) == (None, 1)


async def test_an_answer_does_not_wait_for_ever(quick):
    recorded, now = [], [0.0]
    plugin = Batches(UnavailableError("the engine cannot be reached"))
    captures = Captures(plugin, recorded.append, clock=lambda: now[0])
    captures.wait_for(completion("a", [5]))
    now[0] = 31.0
    await joined(captures, recorded, 1)
    assert (recorded[0].distributions, captures.missing) == (None, 1)


async def test_what_waits_at_the_end_is_recorded(quick):
    recorded = []
    captures = Captures(Batches(), recorded.append)
    captures.wait_for(completion("a", [5]))
    captures.flush()
    assert [one.request.id for one in recorded] == ["a"]
