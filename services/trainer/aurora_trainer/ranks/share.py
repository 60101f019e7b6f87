"""Divides a step's samples among the ranks, and tells each what to compute."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aurora_model.draft import Draft
from aurora_trainer.data.batch import pack, smallest_entries
from aurora_trainer.data.packed import packed_samples, unpacked_samples
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.learning.gradient import AnyBatch, Measure, Unroll, differentiate
from aurora_trainer.learning.objective import ObjectiveName, objective_named


def shares(costs: Sequence[float], ranks: int) -> tuple[tuple[int, ...], ...]:
    """Indices of each rank's samples, ascending; the first rank has at least one.

    Samples are assigned by falling cost to the rank with the least (Graham's LPT: at most a third
    longer than optimal).
    """
    loads = [0.0] * ranks
    found: list[list[int]] = [[] for _ in range(ranks)]
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        rank = min(range(ranks), key=lambda rank: (loads[rank], rank))
        found[rank].append(number)
        loads[rank] += costs[number]
    return tuple(tuple(sorted(each)) for each in found)


@dataclass(frozen=True, slots=True)
class Task:
    """A step as the ranks need it, weights aside: the same for all of them.

    `parts`: the indices of each rank's `samples`. `target_digest`: of the target that computes
    their distributions; empty if they were recorded.
    """

    draft_kind: str
    draft_config: dict[str, Any]
    objective: ObjectiveName
    unroll: Unroll
    samples: Sequence[Sample]
    parts: Sequence[Sequence[int]]
    target_digest: str = ""

    def differentiate(self, draft: Draft, rank: int, teacher: Teacher | None) -> Measure:
        """Adds the gradient of a rank's share to the draft's `grad`; shares add up to the batch.

        `teacher`: computes the target's distributions; None: they are the samples' own.
        """
        part = [self.samples[number] for number in self.parts[rank]]
        if not part:
            return Measure(0.0, 0.0)
        batch: AnyBatch
        if teacher is None:
            batch = pack(part, entries=smallest_entries(self.samples))
        else:
            batch = teacher.pack(part)
        positions = sum(sample.output_count for sample in self.samples)
        loss = objective_named(self.objective)
        return differentiate(draft, batch, loss, positions=positions, unroll=self.unroll)

    def encoded(self) -> bytes:
        """Bytes for `decoded`."""
        buffer = io.BytesIO()
        torch.save(
            {
                "draft_kind": self.draft_kind,
                "draft_config": self.draft_config,
                "objective": self.objective,
                "unroll": (self.unroll.steps, self.unroll.decay),
                "samples": packed_samples(self.samples),
                "parts": [list(part) for part in self.parts],
                "target_digest": self.target_digest,
            },
            buffer,
        )
        return buffer.getvalue()


def decoded(content: bytes) -> Task:
    """The task of these bytes, which cannot run code."""
    found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return Task(
        draft_kind=found["draft_kind"],
        draft_config=found["draft_config"],
        objective=found["objective"],
        unroll=Unroll(*found["unroll"]),
        samples=unpacked_samples(found["samples"]),
        parts=found["parts"],
        target_digest=found["target_digest"],
    )
