"""Trains a draft: optimizer, averaged weights, and recovery from bad steps."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypedDict

import torch
from torch import Tensor

from aurora_model.device import on_host
from aurora_model.draft import Draft
from aurora_trainer.data.batch import pack
from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.gradient import (
    Evaluation,
    LocalGradient,
    Measure,
    Pack,
    Unroll,
    evaluate,
)
from aurora_trainer.learning.objective import ObjectiveName, objective_named
from aurora_trainer.learning.optimizer import DraftOptimizer, OptimizerName

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """Hyperparameters; the defaults suit drafts of a few million parameters."""

    objective: ObjectiveName
    # That suits AdamW; Muon takes more.
    learning_rate: float
    optimizer: OptimizerName = "AdamW"
    warmup_steps: int = 20
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    average_decay: float = 0.98
    unroll: Unroll = field(default=Unroll())
    # Consecutive steps without a finite gradient after which the last snapshot is restored.
    failures_before_restore: int = 3


class Differentiator(Protocol):
    """Computes the gradient of a step, in this process or elsewhere."""

    def differentiate(self, draft: Draft, samples: Sequence[Sample]) -> Measure:
        """Adds the gradient of the samples' mean loss to the parameters' `grad`."""


class LearnerState(TypedDict):
    """What another process needs to resume; loads with weights_only."""

    draft: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, object]
    steps: int
    skipped_steps: int


class Learner:
    """Trains `draft` in place; `average`, its moving average, is what gets published."""

    def __init__(
        self,
        draft: Draft,
        settings: LearnerSettings,
        gradient: Differentiator | None = None,
        *,
        packed: Pack = pack,
    ) -> None:
        """`gradient`: what computes it; None: this process. `packed`: makes batches of samples."""
        self.draft = draft.train()
        self.average = copy.deepcopy(draft).requires_grad_(requires_grad=False).eval()
        self.settings = settings
        self.steps = 0
        self.skipped_steps = 0
        self._failures = 0
        self._loss = objective_named(settings.objective)
        self._packed = packed
        self._gradient = gradient or LocalGradient(
            self._loss, packed=packed, unroll=settings.unroll
        )
        self._optimizer = DraftOptimizer(
            draft, settings.optimizer, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self._snapshot = copy.deepcopy(self.state())

    def step(self, samples: Sequence[Sample]) -> Measure:
        """One optimizer step, skipped and counted if loss or gradient is not finite."""
        self._optimizer.zero_grad()
        measure = self._gradient.differentiate(self.draft, samples)
        norm = torch.nn.utils.clip_grad_norm_(
            self.draft.parameters(), self.settings.gradient_norm, foreach=True
        )
        if not (math.isfinite(measure.loss) and math.isfinite(on_host((norm.detach(),))[0])):
            self._skip()
            return replace(measure, applied=False)
        self._failures = 0
        self.steps += 1
        self._optimizer.step(
            self.settings.learning_rate * min(1.0, self.steps / self.settings.warmup_steps)
        )
        self._update_average()
        return measure

    def take_snapshot(self) -> None:
        """Keeps a copy of the weights and optimizer state to fall back to."""
        self._snapshot = copy.deepcopy(self.state())

    def restore_snapshot(self) -> None:
        """Returns to the snapshot; steps skipped since stay counted."""
        skipped = self.skipped_steps
        self.restore(copy.deepcopy(self._snapshot))
        self.skipped_steps = skipped
        self._failures = 0

    def evaluate(self, samples: Sequence[Sample]) -> Evaluation | None:
        """Loss and expected acceptance of the averaged weights; None without samples."""
        return evaluate(
            self.average, samples, self._loss, packed=self._packed, unroll=self.settings.unroll
        )

    def acceptance(self, draft: Draft, samples: Sequence[Sample]) -> float:
        """How much is at least accepted of any draft; there must be samples."""
        found = evaluate(
            draft, samples, self._loss, packed=self._packed, unroll=self.settings.unroll
        )
        assert found is not None
        return found.acceptance

    def go_on_from(self, draft: Draft) -> None:
        """Takes the weights of a draft of the same shape."""
        for own in (self.draft, self.average):
            own.load_state_dict(draft.state_dict())
        self._optimizer.forget_direction()
        self._failures = 0
        self.take_snapshot()

    def state(self) -> LearnerState:
        """Everything that `restore` needs; the tensors are live, not copies."""
        return {
            "draft": self.draft.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self.steps,
            "skipped_steps": self.skipped_steps,
        }

    def restore(self, state: LearnerState) -> None:
        """Resumes from a state; raises RuntimeError, ValueError or KeyError if it does not fit.

        From one of another optimizer it takes the weights alone.
        """
        self.draft.load_state_dict(state["draft"])
        self.average.load_state_dict(state["average"])
        if not self._optimizer.load_state_dict(state["optimizer"]):
            logger.info(
                "optimizer state dropped: another optimizer was chosen",
                extra={"fields": {"optimizer": self.settings.optimizer}},
            )
        self.steps = state["steps"]
        self.skipped_steps = state["skipped_steps"]
        self.take_snapshot()

    @torch.no_grad()
    def _update_average(self) -> None:
        # A short memory at first, so that a short run is not stuck at its initial weights.
        decay = min(self.settings.average_decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.draft.parameters()), 1 - decay
        )

    def _skip(self) -> None:
        self.skipped_steps += 1
        self._failures += 1
        if self._failures >= self.settings.failures_before_restore:
            self.restore_snapshot()
