"""What a server endures: wrong requests, attacks, disconnects, overload; and that a seed is a seed.

One server, with its default settings but for a small queue. `/health` is asked 20 times a second
all the while.

    python -m benchmarks.serving [--quick] [--requests N] [--disconnects N] [--seeds N]
        [--soak-seconds N]
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import httpx2
import psutil
from benchmarks.clients import Served, passed
from benchmarks.fuzz import MODEL, fuzzed
from benchmarks.health import watched
from benchmarks.option import Count, parse
from benchmarks.report import Figure, exact_figure, write_report
from benchmarks.server import Server, serving
from benchmarks.workload import Workload, workload

from aurora_client import AsyncAuroraClient, AuroraClientError, Draft

T = TypeVar("T")

_MAX_BATCH, _MAX_WAITING = 8, 16
_HANG_SECONDS = 60.0
_SEED = 20_241


@dataclass
class Fuzz:
    requests: int = 0
    server_errors: int = 0
    hangs: int = 0


class Bench:
    """The measurements, on one server."""

    def __init__(self, work: Workload, server: Server, client: httpx2.AsyncClient) -> None:
        self._work = work
        self._server = server
        self._client = client
        self._process = psutil.Process(server.pid)

    def memory(self) -> int:
        return int(self._process.memory_info().rss)

    async def fuzz(self, count: int) -> Fuzz:
        """Sends `count` wrong requests, eight at a time."""
        source, result = random.Random(1), Fuzz()
        requests = iter([fuzzed(source) for _ in range(count)])

        async def send() -> None:
            for request in requests:
                result.requests += 1
                try:
                    answer = await self._client.request(
                        request.method,
                        request.path,
                        headers=request.headers,
                        content=request.content,
                    )
                except httpx2.TimeoutException:
                    result.hangs += 1
                    continue
                except httpx2.RemoteProtocolError:
                    continue  # closed on purpose, as a body not read to its end is
                if answer.status_code >= 500:
                    result.server_errors += 1
                    print(f"{answer.status_code}: {request}", flush=True)
                if result.requests % 2000 == 0:
                    print(f"{result.requests} fuzzed requests", flush=True)

        await asyncio.gather(*(send() for _ in range(8)))
        return result

    async def disconnect(self, count: int) -> None:
        """Leaves `count` streams after their first bytes."""
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 200, "stream": True}
        body |= {"ignore_eos": True}

        async def leave() -> None:
            async with self._client.stream("POST", "/v1/completions", json=body) as answer:
                async for _ in answer.aiter_raw():
                    return

        for start in range(0, count, _MAX_BATCH):
            await asyncio.gather(*(leave() for _ in range(min(_MAX_BATCH, count - start))))

    async def overload(self, seconds: float) -> tuple[int, int]:
        """Twice as many clients as fit, for so long; requests served and refused."""
        served, refused, until = 0, 0, time.monotonic() + seconds

        async def client(number: int) -> None:
            nonlocal served, refused
            while time.monotonic() < until:
                tokens = 4 + number % 32
                body = {"model": MODEL, "prompt": f"hello {number}", "max_tokens": tokens}
                answer = await self._client.post("/v1/completions", json=body)
                if answer.status_code == 429:
                    refused += 1
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                else:
                    answer.raise_for_status()
                    served += 1

        clients = 2 * (_MAX_BATCH + _MAX_WAITING)
        await asyncio.gather(*(client(number) for number in range(clients)))
        return served, refused

    async def attack(self) -> None:
        """Each input that once held up everybody."""
        keys = ",".join(f'"k{number}":1' for number in range(1_000_000))
        await self._raw(f'{{"model":"{MODEL}","prompt":"a",{keys}}}'.encode())
        for size in (1_000_000, 15_000_000):
            await self._raw(json.dumps({"model": MODEL, "prompt": "hello " * (size // 6)}).encode())
        await self._raw(json.dumps({"model": MODEL, "messages": [5] * 300_000}).encode())
        await self._raw(json.dumps({"model": MODEL, "prompt": [5] * 1_000_000}).encode())
        await self._raw(
            json.dumps({"model": MODEL, "prompt": "a", "top_k": 1 << 32, "max_tokens": 2}).encode()
        )
        streams = [await self._connected(self._server.http, b"GET /hea") for _ in range(30)]
        streams += [await self._connected(self._server.grpc, b"PRI") for _ in range(8)]
        await self._stage_fifo()
        await asyncio.sleep(1.0)
        for stream in streams:
            stream.close()

    async def _raw(self, content: bytes) -> None:
        headers = {"content-type": "application/json"}
        with suppress(httpx2.RemoteProtocolError, httpx2.WriteError):
            await self._client.post("/v1/completions", content=content, headers=headers)

    async def _connected(self, address: str, sent: bytes) -> asyncio.StreamWriter:
        host, _, port = address.partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        return writer

    async def _stage_fifo(self) -> None:
        with TemporaryDirectory() as folder:
            os.mkfifo(Path(folder, "aurora.json"))
            async with AsyncAuroraClient(self._server.control) as client:
                with suppress(AuroraClientError):
                    await client.drafts.stage(Draft("fifo", "", Path(folder).as_uri()))

    async def neighbour_stall(self, prompt_bytes: int) -> float:
        """By how many seconds a long prompt delays another's stream: the longest gap between its
        pieces while the prompt is there, less the 99th percentile of those before."""
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 400, "stream": True}
        body |= {"ignore_eos": True, "temperature": 0}
        gaps: list[tuple[float, float]] = []
        steady = asyncio.Event()

        async def stream() -> None:
            last = 0.0
            async with self._client.stream("POST", "/v1/completions", json=body) as answer:
                async for _ in answer.aiter_raw():
                    now = time.perf_counter()
                    if last:
                        gaps.append((now, now - last))
                    last = now
                    if len(gaps) >= 30:
                        steady.set()
            steady.set()

        streaming = asyncio.create_task(stream())
        await steady.wait()
        # Made beforehand: this process must not hold itself up.
        content = json.dumps({"model": MODEL, "prompt": "hello " * (prompt_bytes // 6)}).encode()
        started = time.perf_counter()
        await self._raw(content)
        ended = time.perf_counter()
        await streaming
        before = [0.0, 0.0, *(gap for at, gap in gaps if at < started)]
        during = [gap for at, gap in gaps if started <= at <= ended + 0.1]
        return max(0.0, max(during, default=0.0) - statistics.quantiles(before, n=100)[98])

    async def seed_texts(self, runs: int) -> int:
        """How many texts one seed gives while load and drafts change."""
        texts: set[str] = set()
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 40, "seed": _SEED}
        body |= {"ignore_eos": True, "temperature": 1.0}
        drafts = [self._work.draft_named(name) for name in ("adapted", "static")]
        async with AsyncAuroraClient(self._server.control) as control:
            for run in range(runs):
                if run % 10 == 0:
                    draft = drafts[run // 10 % 2]
                    await control.drafts.stage(draft, slot="stable")
                asked = [body] + [
                    body | {"prompt": f"other {other}", "seed": None} for other in range(run % 6)
                ]
                posts = [self._client.post("/v1/completions", json=each) for each in asked]
                answer, *_ = await asyncio.gather(*posts)
                texts.add(answer.json()["choices"][0]["text"])
        return len(texts)


async def measured(
    work: Workload, server: Server, *, requests: int, disconnects: int, seeds: int, soak: int
) -> dict[str, Figure]:
    limits = httpx2.Limits(max_connections=200)
    base = f"http://{server.http}"
    async with httpx2.AsyncClient(base_url=base, timeout=_HANG_SECONDS, limits=limits) as client:
        bench = Bench(work, server, client)
        # What the first requests allocate is not growth.
        await bench.fuzz(max(requests // 10, 50))
        await bench.disconnect(_MAX_BATCH)
        await bench.overload(2.0)
        health_url = f"{base}/health"
        with watched(health_url) as calm:
            memory = bench.memory()
            fuzz = await bench.fuzz(requests)
            await _said("disconnects", lambda: bench.disconnect(disconnects))
            served, refused = await _said("soak", lambda: bench.overload(soak))
            growth = 100 * (bench.memory() / memory - 1)
        with watched(health_url) as attacked:
            await _said("attacks", bench.attack)
        stalls = [1e3 * await bench.neighbour_stall(1_000_000) for _ in range(5)]
        texts = await bench.seed_texts(seeds)
    return {
        "fuzz_5xx": exact_figure(fuzz.server_errors, "requests"),
        "fuzz_hangs": exact_figure(fuzz.hangs, "requests"),
        "fuzz_requests": exact_figure(fuzz.requests, "requests"),
        "memory_growth_percent": exact_figure(growth, "%"),
        "soak_served": exact_figure(served, "requests"),
        "soak_refused": exact_figure(refused, "requests"),
        "neighbour_stall_ms_1mb": Figure(
            statistics.median(stalls), "ms", (min(stalls), max(stalls))
        ),
        "health_p99_ms_under_load": _p99_ms(calm),
        "health_p99_ms_under_attack": _p99_ms(attacked),
        "seed_texts_distinct": exact_figure(texts, "texts"),
    }


def _p99_ms(seconds: list[float]) -> Figure:
    p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
    return Figure(1e3 * p99, "ms", (1e3 * min(seconds), 1e3 * max(seconds)))


async def _said(what: str, call: Callable[[], Awaitable[T]]) -> T:
    print(what, flush=True)
    return await call()


def main() -> None:
    """Measures, prints, and writes out/bench/serving.json."""
    options = parse(
        __doc__,
        {
            "requests": Count(10_000, 200, "fuzzed"),
            "disconnects": Count(1000, 16),
            "seeds": Count(100, 12, "runs of one seed"),
            "soak_seconds": Count(1200, 2, "at twice the capacity"),
        },
    )
    work = workload(quick=options.quick)
    flags = ("--max-batch", str(_MAX_BATCH), "--max-waiting", str(_MAX_WAITING))
    # float32: a seed's text does not depend on how rows are batched.
    with serving(work, *flags, "--dtype", "float32") as server:
        figures = asyncio.run(
            measured(
                work,
                server,
                requests=options.requests,
                disconnects=options.disconnects,
                seeds=options.seeds,
                soak=options.soak_seconds,
            )
        )
        served = Served(f"http://{server.http}/v1", MODEL, work.target)
        names = ["openai-python"] if options.quick else []
        clients = list(passed(served, names=names))
        figures["clients_passed"] = exact_figure(len(clients), "clients")
    write_report("serving", figures)


if __name__ == "__main__":
    main()
