"""A step's gradient from all ranks: equal to one rank's up to float rounding.

Rank 0 sends samples and weights, and each rank adds its share's gradient to the sum. That is the
traffic of DDP, whose all-reduce is such a reduce and such a broadcast, but no other rank keeps an
optimizer, whose state would have to be the same. DDP itself takes one backward pass a step; here
the head has many, so that not all logits are in memory together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils import parameters_to_vector

from aurora_model.draft import Draft
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.learning.gradient import Measure, Unroll
from aurora_trainer.learning.objective import ObjectiveName
from aurora_trainer.ranks.coordinator import Coordinator
from aurora_trainer.ranks.group import Group, flat_gradient, set_gradient
from aurora_trainer.ranks.share import Task, shares


class RankedGradient:
    """Shares a step's samples among the ranks that are there."""

    def __init__(
        self,
        coordinator: Coordinator,
        objective: ObjectiveName,
        *,
        unroll: Unroll,
        teacher: Teacher | None = None,
        target_digest: str = "",
    ) -> None:
        """`teacher`: computes the distributions of the target of `target_digest`; None: they are
        the samples' own."""
        self._coordinator = coordinator
        self._objective = objective
        self._unroll = unroll
        self._teacher = teacher
        self._target_digest = "" if teacher is None else target_digest

    def differentiate(self, draft: Draft, samples: Sequence[Sample]) -> Measure:
        """Adds the gradient of the samples' mean loss to the parameters' `grad`, which has none.

        If a rank fails, this one computes all of it.
        """
        try:
            with self._coordinator.group() as group:
                if group is not None:
                    return self._together(group, draft, samples)
        except RuntimeError:
            # The coordinator has said why.
            draft.zero_grad(set_to_none=True)
        return self._task(draft, samples, 1).differentiate(draft, 0, self._teacher)

    def _together(self, group: Group, draft: Draft, samples: Sequence[Sample]) -> Measure:
        task = self._task(draft, samples, group.size)
        group.begin(task.encoded())
        weights = parameters_to_vector(draft.parameters()).detach()
        sending = group.begin_broadcast(weights)
        own = task.differentiate(draft, 0, self._teacher)
        group.wait(sending)
        gradient = flat_gradient(draft.parameters())
        group.add_up(gradient)
        means = torch.tensor([own.loss, own.acceptance], dtype=torch.float64)
        group.add_up(means)
        set_gradient(draft.parameters(), gradient)
        loss, acceptance = means.tolist()
        return Measure(loss, acceptance, replicas=group.size)

    def _task(self, draft: Draft, samples: Sequence[Sample], ranks: int) -> Task:
        costs = [
            draft.multiplications(tokens=len(each.tokens), predictions=each.output_count)
            for each in samples
        ]
        return Task(
            draft_kind=draft.kind,
            draft_config=draft.config_content(),
            objective=self._objective,
            unroll=self._unroll,
            samples=samples,
            parts=shares(costs, ranks),
            target_digest=self._target_digest,
        )
