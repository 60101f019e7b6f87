"""What the gateway costs in front of a stock vLLM: the same streams with and without it, in turns.

Eight clients stream at the same time; they read bytes and parse nothing, so that the processors are
left to what is measured. A ratio is that of the tokens per second of one round. `capture_…`: of
recorded requests, all or a tenth with the target's distributions, into a real buffer with a real
Redis; without it nothing is recorded. Needs vLLM's environment: `make bench-vllm`.

    python -m benchmarks.gateway [--quick] [--rounds N] [--requests N]
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from benchmarks.capture import buffering
from benchmarks.option import Count, parse
from benchmarks.process import READY_SECONDS, component
from benchmarks.report import Figure, median_figure, write_report
from benchmarks.workload import Workload, workload
from stock.server import KEY, MODEL, serving

from aurora_common.port import free_port
from aurora_vllm.distribution import write_folder

CLIENTS = 8
MAX_TOKENS = 128
DIRECT, PLAIN, ALL, TENTH = "direct", "plain", "capture_all", "capture_tenth"


class Round(NamedTuple):
    """Tokens per second of all clients, and each request's seconds to its first token."""

    tokens_per_second: float
    first_token_seconds: list[float]


async def stream(port: int, prompt: Sequence[int]) -> float:
    """Streams MAX_TOKENS tokens; the seconds to the first one."""
    body = json.dumps(
        {
            "model": MODEL,
            "prompt": list(prompt),
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    started = time.perf_counter()
    writer.write(head.encode() + body)
    status = await reader.readline()
    assert b" 200 " in status, status
    await reader.readuntil(b"data: ")
    first = time.perf_counter() - started
    await reader.readuntil(b"data: [DONE]")
    writer.close()
    return first


async def measured(port: int, prompts: Sequence[Sequence[int]]) -> Round:
    async def client(number: int) -> list[float]:
        return [await stream(port, prompt) for prompt in prompts[number::CLIENTS]]

    started = time.perf_counter()
    found = await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    seconds = time.perf_counter() - started
    return Round(MAX_TOKENS * len(prompts) / seconds, [one for each in found for one in each])


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


def main() -> None:
    """Measures, prints, and writes out/bench/gateway.json."""
    options = parse(__doc__, {"rounds": Count(15, 1), "requests": Count(32, 8, "in each round")})
    work = workload(quick=options.quick)
    prompts = work.prompts(options.requests)
    rounds: dict[str, list[Round]] = {name: [] for name in (DIRECT, PLAIN, ALL, TENTH)}
    with (
        tempfile.TemporaryDirectory() as name,
        serving(
            target=work.target,
            draft=work.static_draft,
            store=work.target.parent,
            python_path=[write_folder(Path(name) / "plugin")],
            log=Path(name) / "vllm.txt",
        ) as server,
        gateways(work, server.port, Path(name)) as ports,
    ):
        # The first round warms everything up and is not counted.
        for number in range(options.rounds + 1):
            for way in list(ports)[:: 1 if number % 2 else -1]:
                found = asyncio.run(measured(ports[way], prompts))
                if number:
                    rounds[way].append(found)
    write_report("gateway", figures(rounds))


if __name__ == "__main__":
    main()
