"""What a change of draft costs a stock vLLM: 300 activations under mixed load, by the plugin.

Eight clients stream, sample, ask for log-probabilities and hang up, while the static and adapted
draft change places; every tenth time the other one is staged anew. `flip_p99_ms` is the time for
which the worker exchanged the two, `load_p99_ms` that of a staged checkpoint on its way from the
host's memory into the engine's. Then what the adapted draft gains over the static one, in turns.
"""

from __future__ import annotations

import asyncio
import statistics

from benchmarks.report import Figure, exact_figure, median_figure
from benchmarks.vllm_stream import CLIENTS, measured
from benchmarks.workload import Workload
from stock.server import Client, Server

from aurora_client import Draft

MAX_TOKENS = 96
_STAGE_EVERY = 10
_BETWEEN_SECONDS = 0.02


class Load:
    """Clients that complete one prompt after the other until told to stop."""

    def __init__(self, client: Client, prompts: list[tuple[int, ...]]) -> None:
        self.finished = 0
        self.failed = 0
        self.changed = 0
        self.stop = asyncio.Event()
        self._client = client
        self._prompts = prompts
        self._greedy: dict[int, list[int]] = {}

    async def run(self, number: int) -> None:
        """Every client repeats four ways to ask, each greedy one with the same text every time."""
        turn = 0
        while not self.stop.is_set():
            prompt = (number + CLIENTS * turn) % len(self._prompts)
            try:
                await self._ask(prompt, turn % 4)
                self.finished += 1
            except (AssertionError, OSError) as error:
                print(f"failed: {error!r:.200}")
                self.failed += 1
            turn += 1

    async def _ask(self, prompt: int, way: int) -> None:
        tokens = self._prompts[prompt]
        if way == 1:
            await self._client.complete(tokens, MAX_TOKENS, temperature=0.8, top_p=0.95)
        elif way == 2:
            await self._client.complete(tokens, MAX_TOKENS, logprobs=8)
        elif way == 3:
            asking = asyncio.create_task(self._client.complete(tokens, MAX_TOKENS))
            await asyncio.wait([asking], timeout=0.05)
            asking.cancel()
        else:
            said = (await self._client.complete(tokens, MAX_TOKENS)).tokens
            self.changed += said != self._greedy.setdefault(prompt, said)


async def measure(
    work: Workload, server: Server, *, activations: int, rounds: int, requests: int
) -> dict[str, Figure]:
    async with server.client() as client:
        print(f"switch: {activations} activations", flush=True)
        found = await _switching(client, work, activations)
        gain = await _gain(client, work, server.port, rounds=rounds, requests=requests)
        return {**found, "adapted_over_static": gain}


async def _gain(client: Client, work: Workload, port: int, *, rounds: int, requests: int) -> Figure:
    """Tokens per second with the adapted draft over those with the static one."""
    prompts = work.prompts(requests)
    rates: dict[str, list[float]] = {"static": [], "adapted": []}
    for number in range(rounds + 1):
        for name in rates:
            draft = work.draft_named(name)
            await stage(client, draft)
            await client.ok("activate", digest=draft.digest, reset=True)
            one = await measured(port, prompts)
            if number:
                rates[name].append(one.tokens_per_second)
        print(f"switch: gain, round {number} of {rounds}", flush=True)
    pairs = zip(rates["adapted"], rates["static"], strict=True)
    # The engine goes on with the draft that it started with.
    await client.ok("activate", digest=work.draft_named("static").digest, reset=True)
    return median_figure([adapted / static for adapted, static in pairs], "ratio")


async def _switching(client: Client, work: Workload, activations: int) -> dict[str, Figure]:
    load = Load(client, list(work.prompts(16)))
    drafts = [work.draft_named("adapted"), work.draft_named("static")]
    flips: list[float] = []
    loads: list[float] = []
    clients = [asyncio.create_task(load.run(number)) for number in range(CLIENTS)]
    for number in range(activations):
        draft, former = drafts[number % 2], drafts[(number + 1) % 2]
        if number % _STAGE_EVERY == 0:
            await client.ok("unstage", digest=draft.digest)
            loads.append((await stage(client, draft))["load_ms"])
        receipt = await client.ok("activate", digest=draft.digest)
        assert former.digest != receipt["live"]["digest"] == draft.digest
        flips.append(receipt["flip_us"] / 1e3)
        await asyncio.sleep(_BETWEEN_SECONDS)
    load.stop.set()
    await asyncio.gather(*clients)
    return {
        "flip_p99_ms": _p99(flips),
        "load_p99_ms": _p99(loads),
        "activations": exact_figure(len(flips), "activations"),
        "failed_requests": exact_figure(load.failed, "requests"),
        "changed_greedy_outputs": exact_figure(load.changed, "requests"),
        "finished_requests": exact_figure(load.finished, "requests"),
    }


async def stage(client: Client, draft: Draft) -> dict[str, float]:
    path = draft.uri.removeprefix("file://")
    answer: dict[str, float] = await client.ok(
        "stage", digest=draft.digest, name=draft.name, path=path
    )
    return answer


def _p99(values: list[float]) -> Figure:
    # Of few values, the largest.
    value = statistics.quantiles(values, n=100, method="inclusive")[98]
    return Figure(value, "ms", (min(values), max(values)))
