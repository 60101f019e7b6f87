"""One story told to one arm: what is accepted and what it costs, block by block."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from benchmarks.learning_side import (
    BLOCK,
    Arm,
    Deployment,
    PublicRecipe,
    Request,
    Side,
    Static,
    first_draft,
    request_of,
    scored,
)
from benchmarks.learning_traffic import Story, Told
from benchmarks.workload import Workload
from numpy.typing import NDArray

from aurora_model.draft import Draft
from aurora_trainer.judge.renewal import expected_steps

SideName = Literal["static", "loop", "public recipe"]


@dataclass(frozen=True, slots=True)
class Task:
    """One story for one arm; everything that follows from it is determined by `seed`."""

    story: Story
    told: Told
    side: SideName
    arm: Arm
    seed: int
    work: Workload
    cost: Mapping[int, float]


class Block(NamedTuple):
    """A block of requests of one phase.

    `acceptance`: of the served draft on them; `seconds`: of the processor to serve them, at the
    speculation length that is best for them; `learning_seconds`: to judge and to train after them.
    On other requests of the domain, `served_probe`: acceptance of the served draft when the block
    begins; `trained_probe`: of the one in training once the block was learned from.
    """

    phase: int
    requests: int
    acceptance: float
    seconds: float
    learning_seconds: float
    served_probe: float
    trained_probe: float


def play(task: Task) -> list[Block]:
    """The story from its first block to its last, with one thread."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="aurora-learning-") as folder:
        side = _side(task, Path(folder))
        probes = {
            domain: _Probe([request_of(entry, task.work) for entry in entries])
            for domain, entries in task.told.probes.items()
        }
        requests = [request_of(entry, task.work) for entry in task.told.entries]
        blocks: list[Block] = []
        for phase, (domain, count) in enumerate(task.story.phases):
            ahead, requests = requests[:count], requests[count:]
            for start in range(0, count, BLOCK):
                served = ahead[start : start + BLOCK]
                blocks.append(_block(side, phase, served, probes[domain], task.cost))
        return blocks


class _Probe:
    """Requests of a domain that no side learns from."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        self._last: tuple[Draft | None, float] | None = None

    def acceptance(self, draft: Draft | None) -> float:
        return _mean(_scores(draft, self._requests))

    def of_served(self, draft: Draft | None) -> float:
        """As `acceptance`, computed anew only when another draft serves."""
        if self._last is None or self._last[0] is not draft:
            self._last = (draft, self.acceptance(draft))
        return self._last[1]


def _side(task: Task, folder: Path) -> Side:
    draft = first_draft(task.work, task.seed, from_nothing=task.story.from_nothing)
    served = None if task.story.from_nothing else copy.deepcopy(draft).eval()
    match task.side:
        case "static":
            return Static(served)
        case "public recipe":
            return PublicRecipe(task.arm, draft, served=served)
        case "loop":
            return Deployment(task.arm, draft, served=served, work=task.work, folder=folder)


def _block(
    side: Side,
    phase: int,
    requests: Sequence[Request],
    probe: _Probe,
    cost: Mapping[int, float],
) -> Block:
    accepted = _scores(side.served, requests)
    served_probe = probe.of_served(side.served)
    began = time.process_time()
    side.learn(requests, accepted)
    return Block(
        phase=phase,
        requests=len(requests),
        acceptance=_mean(accepted),
        seconds=_serving_seconds(accepted, cost),
        learning_seconds=time.process_time() - began,
        served_probe=served_probe,
        trained_probe=probe.acceptance(side.trained),
    )


def _scores(draft: Draft | None, requests: Sequence[Request]) -> list[NDArray[np.float64]]:
    if draft is None:
        return [np.zeros(request.sample.output_count) for request in requests]
    return [scored(draft, request) for request in requests]


def _serving_seconds(accepted: Sequence[NDArray[np.float64]], cost: Mapping[int, float]) -> float:
    """At the best speculation length; 0 does without the draft."""
    return min(
        seconds
        * sum(expected_steps(each, length) if length else float(len(each)) for each in accepted)
        for length, seconds in cost.items()
    )


def _mean(accepted: Sequence[NDArray[np.float64]]) -> float:
    return float(np.concatenate(accepted).mean())
