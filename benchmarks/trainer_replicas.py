"""Training steps per second of two trainer replicas over one, each on one core of this machine.

This process is replica 0, pinned to the first core; a gradient replica is a separate process,
pinned to the second and reached by mutual TLS as in a cluster. Rounds with and without it
alternate, on the same weights and samples. `two_cores_over_one` is the machine's limit: the steps
of two independent trainers, one per core, over those of one alone. `carried_bytes_per_step` is the
traffic: the weights out and their gradients back.

    python -m benchmarks.trainer_replicas [--quick] [--rounds N] [--steps N]

with `.` and `tests/cluster` in PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from benchmarks.option import Count, parse
from benchmarks.process import component, wait_until_serving
from benchmarks.report import Figure, median_figure, write_report
from support.certificate import Authority

from aurora_common.port import free_port
from aurora_common.tls import CertificateFolder
from aurora_model.config import DecoderConfig, parse_config
from aurora_model.draft import random_draft
from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.replica.pool import Replicas
from aurora_trainer.replica.shared_gradient import SharedGradient
from aurora_trainer.settings import Endpoint

SETTINGS = LearnerSettings(objective="LK", learning_rate=1e-4)
NICENESS = 10
BATCH_SAMPLES = 16
TOP_K = 64
READY_SECONDS = 60.0

Batches: TypeAlias = Sequence[Sequence[Sample]]


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
def replica(folder: Path, core: int) -> Iterator[tuple[Endpoint, Path]]:
    """A gradient replica pinned to a core, and the folder of its certificates."""
    tls = Authority().issue(folder / "tls", "localhost")
    endpoint, health = Endpoint("localhost", free_port()), f"127.0.0.1:{free_port()}"
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    with component(
        "aurora_trainer",
        *("gradient", "--listen", f"127.0.0.1:{endpoint.port}", "--health-listen", health),
        *("--tls", str(tls), "--admit", "localhost"),
    ):
        os.sched_setaffinity(0, ours)
        wait_until_serving(health)
        yield endpoint, tls


@contextmanager
def known(endpoint: Endpoint, tls: Path) -> Iterator[Replicas]:
    """Replica 0's pool, with its event loop on a thread as in a trainer."""
    events = asyncio.new_event_loop()
    thread = threading.Thread(target=events.run_forever)
    thread.start()
    replicas = Replicas(
        [endpoint],
        server_name="localhost",
        certificates=CertificateFolder(tls),
        events=events,
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not replicas.ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the replica was not ready within {READY_SECONDS:.0f} s")
            asyncio.run_coroutine_threadsafe(replicas.refresh(), events).result(READY_SECONDS)
        yield replicas
    finally:
        asyncio.run_coroutine_threadsafe(replicas.close(), events).result(READY_SECONDS)
        events.call_soon_threadsafe(events.stop)
        thread.join()
        events.close()


def steps_per_second(learner: Learner, batches: Batches, replicas: int) -> float:
    """Trains on the batches; raises RuntimeError if a step used another number of replicas."""
    start = time.perf_counter()
    for batch in batches:
        measure = learner.step(batch)
        if not measure.applied or measure.replicas != replicas:
            raise RuntimeError(f"expected a step of {replicas} replicas, got {measure}")
    return len(batches) / (time.perf_counter() - start)


def bystander(core: int, config: DecoderConfig, pipe: Connection) -> None:
    """Trains alone on a core whenever batches arrive; replies with its steps per second."""
    os.nice(NICENESS)
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    learner = Learner(random_draft(config, seed=0), SETTINGS)
    pipe.send(0.0)
    while batches := pipe.recv():
        pipe.send(steps_per_second(learner, batches, 1))


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


def main() -> None:
    """Measures, prints, and writes out/bench/trainer_replicas.json."""
    options = parse(__doc__, {"rounds": Count(9, 1), "steps": Count(3, 1, "in each round")})

    first, second = sorted(os.sched_getaffinity(0))[:2]
    # As in a trainer, so that other load affects both sides alike.
    os.nice(NICENESS)
    os.sched_setaffinity(0, {first})
    torch.set_num_threads(1)
    config = draft_config(quick=options.quick)
    samples = [sample(number, config.vocab_size) for number in range(256)]
    random = np.random.default_rng(0)
    alone: list[float] = []
    together: list[float] = []
    apart: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aurora-bench-")))
        replicas = stack.enter_context(known(*stack.enter_context(replica(folder, second))))
        pipe = stack.enter_context(beside(second, config))
        single = Learner(random_draft(config, seed=0), SETTINGS)
        shared = Learner(
            random_draft(config, seed=0), SETTINGS, SharedGradient(SETTINGS.objective, replicas)
        )

        def measure_apart(batches: Batches) -> float:
            pipe.send(batches)
            here = steps_per_second(single, batches, 1)
            there: float = pipe.recv()
            return here + there

        sides: list[tuple[list[float], Callable[[Batches], float]]] = [
            (alone, lambda batches: steps_per_second(single, batches, 1)),
            (together, lambda batches: steps_per_second(shared, batches, 2)),
            (apart, measure_apart),
        ]
        # The first round warms up all sides and is not counted.
        for number in range(options.rounds + 1):
            batches = [
                [samples[index] for index in random.integers(len(samples), size=BATCH_SAMPLES)]
                for _ in range(options.steps)
            ]
            # Alternately forwards and backwards.
            for rates, measured in sides if number % 2 else reversed(sides):
                rates.append(measured(batches))
            print(
                f"round {number}: one {alone[-1]:.3f}, two {together[-1]:.3f}, "
                f"two that share nothing {apart[-1]:.3f} steps/s",
                flush=True,
            )
    del alone[0], together[0], apart[0]
    ratios = [both / one for both, one in zip(together, alone, strict=True)]
    limits = [both / one for both, one in zip(apart, alone, strict=True)]
    carried = 2.0 * sum(parameter.nbytes for parameter in single.draft.parameters())
    write_report(
        "trainer_replicas",
        {
            "two_replicas_over_one": median_figure(ratios, "ratio"),
            "two_cores_over_one": median_figure(limits, "ratio"),
            "steps_per_second_of_two": median_figure(together, "1/s"),
            "steps_per_second_of_one": median_figure(alone, "1/s"),
            "carried_bytes_per_step": Figure(carried, "bytes", (carried, carried)),
        },
    )


if __name__ == "__main__":
    main()
