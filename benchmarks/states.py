"""What it costs to give a draft the target's hidden states, in percent of a plain decode step.

Two engines decode the same prompts greedily, step by step, taking turns. One has a draft that asks
for the states of three layers and keeps the newest of each request, as an EAGLE-3 head does; none
drafts a token. Each round's figure is the ratio of the steps' medians.

    python -m benchmarks.states [--quick] [--rounds N] [--steps N]
"""

from __future__ import annotations

import os

# Before torch: its threads must not spin while the others work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import statistics
import time
from collections.abc import Sequence

import torch
from benchmarks.option import Count, parse
from benchmarks.report import Figure, median_figure, write_report
from benchmarks.workload import workload
from torch import Tensor

from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import Engine, EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.drafter import Proposal
from aurora_inference.native.runner.sampler import Sampler
from aurora_inference.native.runner.target import Target
from aurora_inference.native.sequence import Sequence as InFlight
from aurora_model.folder import read_folder

BATCHES = (1, 8)


class Listener:
    """Asks for the states of a low, a middle and a high layer, and keeps the newest."""

    name, digest = "listener", "sha256:listener"

    def __init__(self, layers: int) -> None:
        self.sequences: list[InFlight] = []
        self.target_layers = tuple(sorted({0, layers // 2, layers}))
        self.states: dict[InFlight, Tensor] = {}

    def observe(self, read: Sequence[tuple[InFlight, int]], states: Tensor) -> None:
        pieces = torch.split(states, [count for _, count in read])
        self.states.update(zip((sequence for sequence, _ in read), pieces, strict=True))

    def add(self, sequence: InFlight) -> None:
        self.sequences.append(sequence)

    def remove(self, sequence: InFlight) -> None:
        self.sequences.remove(sequence)
        del self.states[sequence]

    def propose(self, count: int, sampler: Sampler) -> Proposal:
        raise AssertionError("nothing is drafted")


def decoding(engine: Engine, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> None:
    """Submits a request for each prompt and steps until all of them decode."""
    for number, prompt in enumerate(prompts):
        engine.submit(
            Request(str(number), prompt, max_tokens, Sampling(0.0), ignore_eos=True, record=False)
        )
    while engine.counters().waiting:
        engine.step()
    engine.step()


def step_seconds(engines: Sequence[Engine], steps: int) -> list[float]:
    """The median of each engine's decode steps; they take turns at every step."""
    seconds: list[list[float]] = [[] for _ in engines]
    for number in range(steps):
        order = list(enumerate(engines))
        for place, engine in order if number % 2 else reversed(order):
            started = time.perf_counter()
            engine.step()
            seconds[place].append(time.perf_counter() - started)
    return [statistics.median(each) for each in seconds]


def main() -> None:
    """Measures, prints, and writes out/bench/states.json."""
    options = parse(__doc__, {"rounds": Count(9, 1), "steps": Count(200, 8, "in each round")})
    work = workload(quick=options.quick)
    cpu = Cpu()
    target = Target.load(read_folder(work.target), dtype=work.dtype, device=cpu)
    torch.set_num_threads(cpu.decode_threads)
    figures: dict[str, Figure] = {}
    for batch in BATCHES:
        overheads, plain_seconds = [], []
        # The first round warms everything up and is not counted.
        for number in range(options.rounds + 1):
            settings = EngineSettings(
                max_batch=batch, max_context_tokens=512, max_speculation_length=0
            )
            plain, listening = (
                new_engine(target, settings, on_completion=lambda completion: None)
                for _ in range(2)
            )
            listening.stage("stable", Listener(target.decoder.config.num_layers))
            for engine in (plain, listening):
                decoding(engine, work.prompts(batch), options.steps + 16)
            without, with_states = step_seconds((plain, listening), options.steps)
            if number:
                overheads.append(100 * (with_states / without - 1))
                plain_seconds.append(1e3 * without)
        figures[f"overhead_percent_b{batch}"] = median_figure(overheads, "%")
        figures[f"plain_step_b{batch}"] = median_figure(plain_seconds, "ms")
        print(f"batch {batch} done", flush=True)
    write_report("states", figures)


if __name__ == "__main__":
    main()
