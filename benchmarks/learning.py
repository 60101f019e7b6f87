"""How fast the draft learns, what it forgets, and what that costs: the loop, simulated.

The trainer's own loop learns from requests that the demo's target answered once; what it publishes
is judged by the operator's own evidence on the requests that follow, and then serves. How many
verify steps a draft needs for a request is computed, as the judge computes it, and a step costs
what it costs on this machine. Stories: a hard shift and the return of the first domain, day 0 from
random weights, both greedy and at T = 0.7, and short phases of three domains at T = 0.7. Every arm
is told the same stories; seeds draw the requests and the order of training.

    python -m benchmarks.learning [--quick] [--seeds N] [--shift N] … [--domain FILE]

`adapted_…` is tokens per processor second over those of the draft that it began with, with the
seconds of serving alone, or `_net` of judging and training too.
"""

from __future__ import annotations

import os

# Before torch: its threads must not spin while the others work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from benchmarks.learning_arms import ALTERNATIVES, NO_REPLAY, OURS, PUBLIC_RECIPE
from benchmarks.learning_cost import measured_cost
from benchmarks.learning_figures import Results, ablation_table, figures
from benchmarks.learning_run import Block, SideName, Task, play
from benchmarks.learning_side import Arm
from benchmarks.learning_traffic import (
    SAMPLED_TEMPERATURE,
    OwnDomain,
    Prompter,
    Story,
    needed,
    recorded,
    told,
)
from benchmarks.option import Count, parse
from benchmarks.report import write_report
from benchmarks.workload import workload

_STATIC = replace(OURS, name="static")


def main() -> None:
    """Measures, prints the ablation, and writes out/bench/learning.json."""
    options = parse(
        __doc__,
        {
            "seeds": Count(3, 1),
            "first": Count(48, 8, "requests of the first domain"),
            "shift": Count(128, 16, "requests after a hard shift, and from random weights"),
            "back": Count(48, 8, "requests of the first domain on its return"),
            "short": Count(64, 8, "requests of each short phase; 0: none"),
            "tokens": Count(48, 8, "in each answer"),
            "steps": Count(16, 1, "training steps after 16 requests"),
            "alternatives": Count(len(ALTERNATIVES), 1, "arms of the ablation"),
            "processes": Count(os.cpu_count() or 1, 1),
        },
        files={"domain": "a shift to a domain of your own too: documents, one a line"},
    )
    torch.set_num_threads(1)
    own = None if options.domain is None else OwnDomain.read(options.domain)
    tasks = list(_tasks(options, own))
    results: Results = {}
    for task, blocks in zip(tasks, _played(tasks, options.processes), strict=True):
        results.setdefault((task.story.name, task.arm.name), []).append(blocks)
        curve = " ".join(f"{block.trained_probe:.3f}" for block in blocks)
        print(f"{task.story.name}, {task.arm.name}, seed {task.seed}: {curve}", flush=True)
    print(ablation_table(results))
    write_report("learning", figures(results))


def _stories(options: argparse.Namespace, own: OwnDomain | None) -> Iterator[Story]:
    for name, temperature in (("greedy", 0.0), ("sampled", SAMPLED_TEMPERATURE)):
        first, back = ("python", options.first), ("python", options.back)
        yield Story(f"shift_{name}", temperature, (first, ("logs", options.shift), back))
        if own is not None:
            yield Story(f"own_{name}", temperature, (first, (own.name, options.shift), back))
        yield Story(f"day0_{name}", temperature, (("logs", options.shift),), from_nothing=True)
    if options.short:
        turns = ("python", "logs", "sql", "python", "logs")
        phases = tuple((domain, options.short) for domain in turns)
        yield Story("short_sampled", SAMPLED_TEMPERATURE, phases)


def _tasks(options: argparse.Namespace, own: OwnDomain | None) -> Iterator[Task]:
    work = workload(quick=options.quick)
    stories = list(_stories(options, own))
    domains = dict.fromkeys(domain for story in stories for domain, _ in story.phases)
    counts = {domain: max(needed(story, domain) for story in stories) for domain in domains}
    prompter = Prompter(work, own, options.quick)
    pool = recorded(work, counts, prompter, tokens=options.tokens)
    cost = measured_cost(work, steps=4 if options.quick else 40)
    for seed in range(options.seeds):
        for story in stories:
            arms: list[tuple[SideName, Arm]] = [("static", _STATIC), ("loop", OURS)]
            if not story.from_nothing:
                arms += [("loop", NO_REPLAY), ("public recipe", PUBLIC_RECIPE)]
            if story.name.startswith(("shift", "day0")):
                arms += [("loop", arm) for arm in ALTERNATIVES[: options.alternatives]]
            for side, arm in arms:
                shown = story
                if arm in ALTERNATIVES and not story.from_nothing:
                    # Nothing comes back: the ablation is of learning.
                    shown = replace(story, phases=story.phases[:2])
                yield Task(
                    story=shown,
                    told=told(story, pool, seed),
                    side=side,
                    arm=replace(arm, steps=options.steps, seed=seed),
                    seed=seed,
                    work=work,
                    cost=cost.at(story.temperature),
                )


def _played(tasks: Sequence[Task], processes: int) -> Iterator[list[Block]]:
    if processes == 1:
        yield from map(play, tasks)
        return
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawning) as pool:
        yield from pool.map(play, tasks)


if __name__ == "__main__":
    main()
