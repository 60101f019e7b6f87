"""What a change of draft costs: 100 swaps of the serving draft under load, by gRPC.

Each swap stages a checkpoint, verified and packed, and promotes it between two decode steps, while
four streams decode without a break. `pause_p99_over_step` is the time for which the engine's thread
was held by a promotion, over its median decode step in the same run.

    python -m benchmarks.swap [--quick] [--swaps N] [--streams N]
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.option import Count, parse
from benchmarks.report import exact_figure, write_report
from benchmarks.server import serving
from benchmarks.workload import workload

from aurora_client import AuroraClient, AuroraClientError, Draft

MAX_TOKENS = 128


class Load:
    """Streams that decode one completion after the other until told to stop."""

    def __init__(self, address: str, prompts: list[tuple[int, ...]], streams: int) -> None:
        self.finished = 0
        self.dropped = 0
        self.gaps: list[tuple[float, float]] = []  # (when, seconds since the stream's last tokens)
        self._address = address
        self._prompts = prompts
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._stream, args=(number,)) for number in range(streams)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _stream(self, number: int) -> None:
        with AuroraClient(self._address) as client:
            while not self._stop.is_set():
                number += len(self._threads)
                try:
                    count = self._complete(client, self._prompts[number % len(self._prompts)])
                except AuroraClientError:
                    count = 0
                with self._lock:
                    self.finished += 1
                    self.dropped += count != MAX_TOKENS

    def _complete(self, client: AuroraClient, prompt: tuple[int, ...]) -> int:
        tokens, last = 0, 0.0
        for chunk in client.generate(
            prompt, max_tokens=MAX_TOKENS, temperature=0.0, ignore_eos=True, stream=True
        ):
            now = time.perf_counter()
            if last:
                self.gaps.append((now, now - last))
            last = now
            tokens += len(chunk.token_ids)
        return tokens


def swap(client: AuroraClient, draft: Draft) -> float:
    """Stages and promotes a draft; the seconds for which decoding was held up."""
    client.drafts.stage(draft)
    return client.drafts.promote(draft.digest)


def main() -> None:
    """Measures, prints, and writes out/bench/swap.json."""
    options = parse(__doc__, {"swaps": Count(100, 2), "streams": Count(4, 2)})
    work = workload(quick=options.quick)
    with serving(work) as server, AuroraClient(server.control) as client:
        load = Load(server.grpc, list(work.prompts(16)), options.streams)
        drafts = [work.draft_named("adapted"), work.draft_named("static")]
        with load.running():
            before = _gaps_of_the_next(load, seconds=5.0)
            pauses, started = [], time.perf_counter()
            for number in range(options.swaps):
                pauses.append(swap(client, drafts[number % 2]))
                if number % 10 == 9:
                    print(f"{number + 1} swaps", flush=True)
            during = [gap for when, gap in load.gaps if when >= started]
        steps = statistics.median(before)
    pause = _percentile(pauses, 99)
    write_report(
        "swap",
        {
            "dropped_requests": exact_figure(load.dropped, "requests"),
            "finished_requests": exact_figure(load.finished, "requests"),
            "pause_p99_over_step": exact_figure(pause / steps, "ratio"),
            "pause_p99": exact_figure(pause * 1e6, "µs"),
            "step_median": exact_figure(steps * 1e3, "ms"),
            "token_gap_p99_during_swaps": exact_figure(_percentile(during, 99) * 1e3, "ms"),
            "token_gap_p99_before": exact_figure(_percentile(before, 99) * 1e3, "ms"),
        },
    )


def _gaps_of_the_next(load: Load, *, seconds: float) -> list[float]:
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        time.sleep(0.1)
    return [gap for when, gap in load.gaps if when >= started + seconds / 5]


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


if __name__ == "__main__":
    main()
