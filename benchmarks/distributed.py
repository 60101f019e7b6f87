"""Training steps per second of two ranks over one, each on one core of this machine.

This process is rank 0, pinned to the first core; the other rank is a process pinned to the second.
Rounds with and without it alternate, on the same samples. `two_cores_over_one` is the machine's
limit: the steps of two independent trainers, one per core, over those of one alone.
`loss_difference_max`: between the two loss curves, at the same global batch.
`carried_bytes_per_step` is the traffic: the weights out and their gradients back.

    python -m benchmarks.distributed [--quick] [--rounds N] [--steps N]

with `.` in PYTHONPATH.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TypeAlias

import numpy as np
import torch
from benchmarks.option import Count, parse
from benchmarks.process import component
from benchmarks.report import exact_figure, median_figure, write_report

from aurora_common.port import free_port
from aurora_model.config import DecoderConfig, parse_config
from aurora_model.draft import random_draft
from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.ranks.coordinator import Coordinator
from aurora_trainer.ranks.gradient import RankedGradient
from aurora_trainer.ranks.store import hosted_store

SETTINGS = LearnerSettings(objective="LK", learning_rate=1e-4)
NICENESS = 10
BATCH_SAMPLES = 16
TOP_K = 64
READY_SECONDS = 60.0
POLL_SECONDS = 0.1

Batches: TypeAlias = Sequence[Sequence[Sample]]
Side: TypeAlias = Callable[[Batches], float]


def draft_config(*, quick: bool) -> DecoderConfig:
    """About 29 million parameters, 16 of them in the tied embeddings; `quick`: 0.3 million."""
    return parse_config(
        {
            "model_type": "llama",
            "vocab_size": 1_000 if quick else 32_000,
            "hidden_size": 64 if quick else 512,
            "intermediate_size": 128 if quick else 1408,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
        }
    )


def sample(number: int, vocab_size: int) -> Sample:
    """A trajectory of realistic length with random tokens, seeded by `number`."""
    random = np.random.default_rng(number)
    prompt, output = int(random.integers(16, 192)), int(random.integers(16, 96))
    log_probs = np.log(random.dirichlet(np.full(TOP_K + 1, 0.1), output).clip(1e-6))
    return Sample(
        stream_id=f"{number}-0",
        request_id=f"request-{number}",
        domain="sql",
        tokens=random.integers(vocab_size, size=prompt + output, dtype=np.int32),
        top_ids=np.stack(
            [random.choice(vocab_size, TOP_K, replace=False) for _ in range(output)]
        ).astype(np.int32),
        log_probs=log_probs[:, :TOP_K].astype(np.float16),
        tail_mass=np.exp(log_probs[:, TOP_K]).astype(np.float16),
    )


@contextmanager
def rank(core: int) -> Iterator[Coordinator]:
    """A rank pinned to a core, and the coordinator that it follows, once both train together."""
    address, health = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    coordinator = Coordinator(hosted_store(address), ranks=2, timeout_seconds=READY_SECONDS)
    coordinator.start()
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    with component("aurora_trainer", "rank", "--listen", health, "--trainer", address):
        os.sched_setaffinity(0, ours)
        deadline = time.monotonic() + READY_SECONDS
        while not coordinator.ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the ranks did not meet within {READY_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        yield coordinator
        coordinator.end()


def steps_per_second(learner: Learner, batches: Batches, ranks: int, losses: list[float]) -> float:
    """Trains on the batches, and appends their losses.

    Raises RuntimeError if another number of ranks took a step.
    """
    start = time.perf_counter()
    for batch in batches:
        measure = learner.step(batch)
        if not measure.applied or measure.replicas != ranks:
            raise RuntimeError(f"expected a step of {ranks} ranks, got {measure}")
        losses.append(measure.loss)
    return len(batches) / (time.perf_counter() - start)


def bystander(core: int, config: DecoderConfig, pipe: Connection) -> None:
    """Trains alone on a core whenever batches arrive; replies with its steps per second."""
    os.nice(NICENESS)
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    learner = Learner(random_draft(config, seed=0), SETTINGS)
    pipe.send(0.0)
    while batches := pipe.recv():
        pipe.send(steps_per_second(learner, batches, 1, []))


@contextmanager
def beside(core: int, config: DecoderConfig) -> Iterator[Connection]:
    """Runs a bystander in a separate process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=bystander, args=(core, config, theirs))
    process.start()
    ours.recv()
    try:
        yield ours
    finally:
        ours.send([])
        process.join()


@dataclass
class Curves:
    """Losses by step, of the learner alone and of the one with another rank."""

    alone: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)

    @property
    def difference_max(self) -> float:
        return max(abs(one - two) for one, two in zip(self.alone, self.together, strict=True))


def measured(
    rounds: int, steps: int, samples: Sequence[Sample], sides: Sequence[Side]
) -> list[list[float]]:
    """The rates of each side in each round; the first round warms up and is left out."""
    random = np.random.default_rng(0)
    rates: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        batches = [
            [samples[index] for index in random.integers(len(samples), size=BATCH_SAMPLES)]
            for _ in range(steps)
        ]
        # Alternately forwards and backwards.
        order = range(len(sides)) if number % 2 else reversed(range(len(sides)))
        for side in order:
            rates[side].append(sides[side](batches))
        newest = ", ".join(f"{each[-1]:.3f}" for each in rates)
        print(f"round {number}: {newest} steps/s alone, together, apart", flush=True)
    return [each[1:] for each in rates]


def main() -> None:
    """Measures, prints, and writes out/bench/distributed.json."""
    options = parse(__doc__, {"rounds": Count(9, 1), "steps": Count(3, 1, "in each round")})
    first, second = sorted(os.sched_getaffinity(0))[:2]
    # As in a trainer, so that other load affects both sides alike.
    os.nice(NICENESS)
    os.sched_setaffinity(0, {first})
    torch.set_num_threads(1)
    config = draft_config(quick=options.quick)
    samples = [sample(number, config.vocab_size) for number in range(256)]
    curves = Curves()
    with ExitStack() as stack:
        coordinator = stack.enter_context(rank(second))
        pipe = stack.enter_context(beside(second, config))
        single = Learner(random_draft(config, seed=0), SETTINGS)
        gradient = RankedGradient(coordinator, SETTINGS.objective, unroll=SETTINGS.unroll)
        shared = Learner(random_draft(config, seed=0), SETTINGS, gradient)
        # Trains on batches of its own, so that the other two take the same steps.
        spare = Learner(random_draft(config, seed=0), SETTINGS)

        def apart(batches: Batches) -> float:
            pipe.send(batches)
            here = steps_per_second(spare, batches, 1, [])
            there: float = pipe.recv()
            return here + there

        sides: list[Side] = [
            lambda batches: steps_per_second(single, batches, 1, curves.alone),
            lambda batches: steps_per_second(shared, batches, 2, curves.together),
            apart,
        ]
        alone, together, both = measured(options.rounds, options.steps, samples, sides)
    carried = 2.0 * sum(parameter.nbytes for parameter in single.draft.parameters())
    ratios = [two / one for two, one in zip(together, alone, strict=True)]
    limits = [two / one for two, one in zip(both, alone, strict=True)]
    write_report(
        "distributed",
        {
            "two_ranks_over_one": median_figure(ratios, "ratio"),
            "two_cores_over_one": median_figure(limits, "ratio"),
            "loss_difference_max": exact_figure(curves.difference_max, "nats"),
            "steps_per_second_of_two": median_figure(together, "1/s"),
            "steps_per_second_of_one": median_figure(alone, "1/s"),
            "carried_bytes_per_step": exact_figure(carried, "bytes"),
        },
    )


if __name__ == "__main__":
    main()
