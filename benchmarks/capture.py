"""What recording trajectories costs: the same requests with and without it, taking turns.

The server records into a real buffer with a real Redis; requests that opt out are not recorded.
`overhead_percent` is by how much recording lowers the tokens per second of a round.

    python -m benchmarks.capture [--quick] [--rounds N] [--prompts N]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from benchmarks.option import Count, parse
from benchmarks.process import component, wait_until_serving
from benchmarks.report import median_figure, write_report
from benchmarks.server import serving
from benchmarks.workload import workload

from aurora_client import AuroraClient
from aurora_common.port import free_port

MAX_TOKENS = 96
STREAMS = 4


@contextmanager
def buffering() -> Iterator[str]:
    """A buffer with a fresh Redis; its address."""
    address = f"127.0.0.1:{free_port()}"
    with (
        tempfile.TemporaryDirectory(prefix="aurora-bench-") as folder,
        component("aurora_buffer", "redis", "--dir", folder, "--socket", f"{folder}/redis.sock"),
        component(
            *("aurora_buffer", "serve", "--listen", address),
            *("--redis-url", f"unix://{folder}/redis.sock"),
            *("--max-age-seconds", "3600", "--max-bytes", str(1 << 30)),
        ),
    ):
        wait_until_serving(address)
        yield address


def tokens_per_second(
    client: AuroraClient,
    prompts: tuple[tuple[int, ...], ...],
    *,
    record: bool,
    streams: int = STREAMS,
) -> float:
    """Decodes every prompt, so many at a time."""

    def complete(prompt: tuple[int, ...]) -> int:
        completion = client.generate(
            prompt, max_tokens=MAX_TOKENS, temperature=0.0, ignore_eos=True, no_train=not record
        )
        return completion.usage.completion_tokens

    started = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        tokens = sum(pool.map(complete, prompts))
    return tokens / (time.perf_counter() - started)


def main() -> None:
    """Measures, prints, and writes out/bench/capture.json."""
    options = parse(__doc__, {"rounds": Count(21, 1), "prompts": Count(16, 4, "in each round")})
    work = workload(quick=options.quick)
    prompts = work.prompts(options.prompts)
    rates: dict[bool, list[float]] = {True: [], False: []}
    with (
        buffering() as buffer,
        serving(work, "--buffer", buffer) as server,
        AuroraClient(server.grpc) as client,
    ):
        # The first round warms everything up and is not counted.
        for number in range(options.rounds + 1):
            for record in (True, False) if number % 2 else (False, True):
                rates[record].append(tokens_per_second(client, prompts, record=record))
        sent = client.counters().trajectories_sent
    if sent == 0:
        raise RuntimeError("nothing was recorded")
    overhead = [
        100 * (1 - on / off) for on, off in zip(rates[True][1:], rates[False][1:], strict=True)
    ]
    write_report(
        "capture",
        {
            "overhead_percent": median_figure(overhead, "%"),
            "recorded": median_figure(rates[True][1:], "tokens/s"),
            "unrecorded": median_figure(rates[False][1:], "tokens/s"),
        },
    )


if __name__ == "__main__":
    main()
