"""What the gateway costs in front of a stock vLLM: the same streams with and without it, in turns.

A ratio is that of the tokens per second of one round. `capture_…`: of recorded requests, all or a
tenth with the target's distributions, into a real buffer with a real Redis; without it nothing is
recorded.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from benchmarks.capture import buffering
from benchmarks.process import READY_SECONDS, component
from benchmarks.report import Figure, median_figure
from benchmarks.vllm_stream import Round, measured
from benchmarks.workload import Workload
from stock.server import KEY, Server

from aurora_common.port import free_port

DIRECT, PLAIN, ALL, TENTH = "direct", "plain", "capture_all", "capture_tenth"


@contextmanager
def gateways(work: Workload, engine: int, folder: Path) -> Iterator[dict[str, int]]:
    """The ports of vLLM and of the gateways in front of it."""
    (folder / "key").write_text(KEY)
    ports = {DIRECT: engine}
    with ExitStack() as stack:
        recording = ("--target", str(work.target), "--buffer", stack.enter_context(buffering()))
        for name, flags in (
            (PLAIN, ()),
            (ALL, (*recording, "--capture-percent", "100")),
            (TENTH, (*recording, "--capture-percent", "10")),
        ):
            ports[name] = free_port()
            stack.enter_context(
                component(
                    *("aurora_inference.gateway", "--engine", f"http://127.0.0.1:{engine}"),
                    *("--engine-key", str(folder / "key")),
                    *("--http-listen", f"127.0.0.1:{ports[name]}", *flags),
                )
            )
            wait_until_ready(ports[name])
        yield ports


def wait_until_ready(port: int) -> None:
    """Returns once the gateway's health is 200; raises TimeoutError otherwise."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.1)
    raise TimeoutError(f"the gateway was not ready within {READY_SECONDS:.0f} s")


def figures(rounds: dict[str, list[Round]]) -> dict[str, Figure]:
    def ratio(name: str) -> Figure:
        pairs = zip(rounds[name], rounds[DIRECT], strict=True)
        return median_figure(
            [one.tokens_per_second / other.tokens_per_second for one, other in pairs], "ratio"
        )

    def first(name: str) -> list[float]:
        return [1e3 * statistics.median(one.first_token_seconds) for one in rounds[name]]

    added = [own - direct for own, direct in zip(first(PLAIN), first(DIRECT), strict=True)]
    rates = [one.tokens_per_second for one in rounds[DIRECT]]
    return {
        "gateway_tokens_per_second_ratio_b8": ratio(PLAIN),
        "gateway_ttft_added_ms": median_figure(added, "ms"),
        "capture_all_ratio_b8": ratio(ALL),
        "capture_tenth_ratio_b8": ratio(TENTH),
        "direct_tokens_per_second": median_figure(rates, "tokens/s"),
        "direct_ttft_ms": median_figure(first(DIRECT), "ms"),
    }


def measure(
    work: Workload, server: Server, folder: Path, *, rounds: int, requests: int
) -> dict[str, Figure]:
    """`folder`: empty, for what the gateways need."""
    prompts = work.prompts(requests)
    found: dict[str, list[Round]] = {name: [] for name in (DIRECT, PLAIN, ALL, TENTH)}
    with gateways(work, server.port, folder) as ports:
        # The first round warms everything up and is not counted.
        for number in range(rounds + 1):
            for way in list(ports)[:: 1 if number % 2 else -1]:
                one = asyncio.run(measured(ports[way], prompts))
                if number:
                    found[way].append(one)
            print(f"gateway: round {number} of {rounds}", flush=True)
    return figures(found)
