"""Whether the gateway counts what vLLM counts, for the draft that proposed it, while drafts change.

Of the twin every token is accepted and of the outsider hardly any, so that steps counted for the
wrong draft move its acceptance rate from what it is without changes: `attributed_share` is the
share of steps that are not missing there. The two are no relatives, so that a switch empties the
attention cache, which would move the rates as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx2
from benchmarks.process import component
from benchmarks.report import Figure, exact_figure
from benchmarks.vllm_gateway import wait_until_ready
from benchmarks.workload import Workload
from stock.counters import totals
from stock.models import Models, made_models
from stock.server import KEY, MODEL, serving
from transformers import PreTrainedTokenizerFast

from aurora.inference.v1 import inference_pb2 as pb
from aurora.inference.v1 import inference_pb2_grpc
from aurora_common.checkpoint import CheckpointManifest
from aurora_common.port import free_port
from aurora_vllm.distribution import write_folder

CLIENTS = 8
MAX_TOKENS = 64
_BETWEEN_SECONDS = 0.3
_CALL_SECONDS = 60.0


class Arm(NamedTuple):
    steps: int
    drafted: int
    accepted: int

    @property
    def acceptance(self) -> float:
        return self.accepted / self.drafted

    def since(self, before: Arm) -> Arm:
        return Arm(*(now - then for now, then in zip(self, before, strict=True)))


class Canary:
    """The twin is stable and the outsider the candidate, behind a gateway."""

    def __init__(
        self, stub: inference_pb2_grpc.InferenceStub, http: httpx2.AsyncClient, models: Models
    ) -> None:
        self.stub = stub
        self.http = http
        self._models = models
        self._sent = 0

    async def stage(self) -> None:
        await self._stage(self._models.twin, pb.SLOT_STABLE)
        await self._stage(self._models.outsider, pb.SLOT_CANDIDATE)

    async def _stage(self, draft: CheckpointManifest, slot: pb.Slot) -> None:
        uri = self._models.folder(draft).as_uri()
        message = pb.Draft(name=draft.name, digest=draft.digest, uri=uri)
        await self.stub.StageDraft(
            pb.StageDraftRequest(slot=slot, draft=message), timeout=_CALL_SECONDS
        )

    async def give(self, candidate_bps: int) -> None:
        """All or none of the time to the candidate."""
        traffic = pb.SetTrafficRequest(rollout_id="r", candidate_bps=candidate_bps)
        await self.stub.SetTraffic(traffic, timeout=_CALL_SECONDS)

    async def arms(self) -> Mapping[str, Arm]:
        found = await self.stub.GetCounters(pb.GetCountersRequest(), timeout=_CALL_SECONDS)
        return {
            arm.arm: Arm(arm.verify_steps, arm.drafted_tokens, arm.accepted_tokens)
            for arm in found.arms
        }

    async def steps(self) -> int:
        return sum(arm.steps for arm in (await self.arms()).values())

    async def complete(self) -> None:
        """One greedy request whose prompt no other has: nothing of it is cached."""
        self._sent += 1
        prompt = [2 + (self._sent * place) % 300 for place in range(1, 25)]
        body = {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": self._sent % 2 == 0,
            "cache_salt": str(self._sent),
        }
        answer = await self.http.post("/v1/completions", json=body)
        answer.raise_for_status()

    async def clients(self, stop: asyncio.Event) -> None:
        async def client() -> None:
            while not stop.is_set():
                await self.complete()

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def totals(self) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = totals((await self.http.get("/metrics")).text)
        return found


async def measure(canary: Canary, steps: int) -> dict[str, Figure]:
    await canary.stage()
    pure: dict[str, float] = {}
    for arm, bps in (("stable", 0), ("candidate", 10_000)):
        await canary.give(bps)
        before = (await canary.arms())[arm]
        await asyncio.gather(*(canary.complete() for _ in range(CLIENTS)))
        pure[arm] = (await canary.arms())[arm].since(before).acceptance
    counted, arms = await canary.totals(), await canary.arms()
    begun = goal = await canary.steps()
    goal += steps
    stop, switches = asyncio.Event(), 0
    load = asyncio.create_task(canary.clients(stop))
    while (now := await canary.steps()) < goal and not load.done():
        switches += 1
        await canary.give(10_000 * (switches % 2))
        await asyncio.sleep(_BETWEEN_SECONDS)
        if switches % 20 == 0:
            print(f"evidence: {now - begun} of {steps} steps", flush=True)
    stop.set()
    await load
    found = {arm: total.since(arms[arm]) for arm, total in (await canary.arms()).items()}
    return {
        "evidence_equals_prometheus": exact_figure(
            float(_equal(counted, await canary.totals())), "1 if so"
        ),
        "attributed_share": exact_figure(1 - _strays(found, pure), "share"),
        "attributed_steps": exact_figure(sum(arm.steps for arm in found.values()), "steps"),
        "evidence_switches": exact_figure(switches, "switches"),
    }


def _equal(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> bool:
    return all(
        own - before[name][0] == engines - before[name][1] > 0
        for name, (own, engines) in after.items()
    )


def _strays(found: Mapping[str, Arm], pure: Mapping[str, float]) -> float:
    """The share of steps that are counted for the other draft, by what that does to the rates."""
    apart = pure["stable"] - pure["candidate"]
    of_stable = (pure["stable"] - found["stable"].acceptance) / apart * found["stable"].steps
    candidate = found["candidate"]
    of_candidate = (candidate.acceptance - pure["candidate"]) / apart * candidate.steps
    steps = found["stable"].steps + candidate.steps
    return (max(0.0, of_stable) + max(0.0, of_candidate)) / steps


@contextlib.asynccontextmanager
async def _canary(models: Models, engine: int, folder: Path) -> AsyncIterator[Canary]:
    (folder / "key").write_text(KEY)
    http, control = free_port(), free_port()
    flags = ("--http-listen", f"127.0.0.1:{http}", "--control-listen", f"127.0.0.1:{control}")
    with component(
        *("aurora_inference.gateway", "--engine", f"http://127.0.0.1:{engine}"),
        *("--engine-key", str(folder / "key"), "--target", str(models.target), *flags),
    ):
        await asyncio.to_thread(wait_until_ready, http)
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{control}") as channel,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{http}", timeout=120) as client,
        ):
            stub = inference_pb2_grpc.InferenceStub(channel)  # type: ignore[no-untyped-call]
            yield Canary(stub, client, models)


def evidence(work: Workload, steps: int) -> dict[str, Figure]:
    """Starts a vLLM of its own, with models whose acceptance is known by construction."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work.target)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = made_models(folder / "models", tokenizer)
        print("evidence: starting vLLM", flush=True)
        with serving(
            target=models.target,
            draft=models.start,
            store=models.store,
            python_path=[write_folder(folder / "plugin")],
            log=folder / "vllm.txt",
        ) as server:

            async def run() -> dict[str, Figure]:
                async with _canary(models, server.port, folder) as canary:
                    return await measure(canary, steps)

            return asyncio.run(run())
