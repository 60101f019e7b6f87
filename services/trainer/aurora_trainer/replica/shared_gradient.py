"""A step's gradient from several replicas: equal to one replica's up to float rounding."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from aurora_model.draft import Draft
from aurora_trainer.data.batch import Batch, pack, smallest_entries
from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.gradient import Measure, differentiate
from aurora_trainer.learning.objective import ObjectiveName, objective_named
from aurora_trainer.replica.call import Answer, Outgoing
from aurora_trainer.replica.discovery import Place
from aurora_trainer.replica.pace import Paces
from aurora_trainer.replica.parameter import parameters
from aurora_trainer.replica.share import batch_tensors, config_text

# How long a step waits for a replica after finishing its own share.
_LEAST_WAIT_SECONDS = 2.0
_WAIT_OVER_OWN = 3.0
# A replica's first share also sets up a connection and memory.
_LEAST_FIRST_WAIT_SECONDS = 10.0


class Exchange(Protocol):
    """Access to the other replicas."""

    def known(self) -> Collection[Place]:
        """All discovered replicas, ready or not."""

    def ready(self) -> Sequence[Place]:
        """The replicas that can take a share now."""

    def begin(
        self, shares: Mapping[Place, Outgoing], weights: Mapping[str, Tensor]
    ) -> Mapping[Place, Future[Answer | None]]:
        """Sends the shares; each future is the answer, or None on failure."""


@dataclass(frozen=True, slots=True)
class _OwnShare:
    began: float
    ended: float
    cost: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def lag(self, seconds: float, cost: float) -> float:
        """The lag of a replica that took so many seconds for a share of this cost."""
        return seconds * self.cost / self.seconds - cost


class SharedGradient:
    """Sends shares to ready replicas, computes its own meanwhile, then those that others failed.

    Transferring weights and gradients takes time, so the more a replica lagged in earlier steps,
    the smaller its share.
    """

    def __init__(self, objective: ObjectiveName, exchange: Exchange) -> None:
        self._objective = objective
        self._loss = objective_named(objective)
        self._exchange = exchange
        self._paces = Paces()

    def differentiate(self, draft: Draft, samples: Sequence[Sample]) -> Measure:
        began = time.monotonic()
        self._paces.keep(self._exchange.known())
        costs = [
            draft.multiplications(tokens=len(each.tokens), predictions=each.output_count)
            for each in samples
        ]
        part, parts = self._paces.divided(costs, self._exchange.ready())
        positions = sum(sample.output_count for sample in samples)
        entries = smallest_entries(samples)
        own = pack([samples[i] for i in part], entries=entries)
        batches = {
            place: pack([samples[i] for i in each], entries=entries)
            for place, each in parts.items()
        }
        futures = self._exchange.begin(
            {place: self._outgoing(draft, each, positions) for place, each in batches.items()},
            parameters(draft),
        )
        measures = [differentiate(draft, own, self._loss, positions=positions)]
        ours = _OwnShare(began, time.monotonic(), sum(costs[i] for i in part))
        answers = 0
        for place, batch in batches.items():
            cost = sum(costs[i] for i in parts[place])
            found = self._awaited(place, futures[place], cost, ours)
            if found is None:
                measures.append(differentiate(draft, batch, self._loss, positions=positions))
                continue
            _add(draft, found)
            measures.append(found.measure)
            answers += 1
        return Measure(
            sum(each.loss for each in measures),
            sum(each.acceptance for each in measures),
            replicas=1 + answers,
        )

    def _awaited(
        self, place: Place, future: Future[Answer | None], cost: float, ours: _OwnShare
    ) -> Answer | None:
        first = self._paces.is_first(place)
        least = _LEAST_FIRST_WAIT_SECONDS if first else _LEAST_WAIT_SECONDS
        deadline = ours.ended + max(least, _WAIT_OVER_OWN * ours.seconds)
        try:
            found = future.result(max(0.0, deadline - time.monotonic()))
        except CancelledError:
            found = None
        except TimeoutError:
            future.cancel()
            self._paces.given_up(place, ours.lag(time.monotonic() - ours.began, cost))
            return None
        if found is None:
            self._paces.failed(place)
        else:
            self._paces.answered(place, ours.lag(found.seconds, cost))
        return found

    def _outgoing(self, draft: Draft, batch: Batch, positions: int) -> Outgoing:
        return Outgoing(
            draft_kind=draft.kind,
            draft_config=config_text(draft),
            objective=self._objective,
            positions=positions,
            lengths=batch.lengths,
            batch=batch_tensors(batch),
        )


@torch.no_grad()
def _add(draft: Draft, found: Answer) -> None:
    for name, parameter in draft.named_parameters():
        gradient = found.gradients[name]
        if parameter.grad is None:
            parameter.grad = gradient.clone()
        else:
            parameter.grad += gradient
