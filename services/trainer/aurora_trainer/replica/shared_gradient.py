"""A step's gradient from several replicas: to float rounding, what one alone would compute."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Protocol

import torch
from torch import Tensor

from aurora_model.decoder import Decoder
from aurora_trainer.batch import Batch, pack, smallest_entries
from aurora_trainer.gradient import LocalGradient, Measure, differentiate
from aurora_trainer.objective import ObjectiveName, objective_named
from aurora_trainer.replica.call import Answer, Outgoing
from aurora_trainer.replica.discovery import Place
from aurora_trainer.replica.parameter import parameters
from aurora_trainer.replica.share import batch_tensors, config_text
from aurora_trainer.replica.shares import shares
from aurora_trainer.sample import Sample

# How long a step waits for the others, from its beginning.
_LEAST_WAIT_SECONDS = 30.0
_WAIT_OVER_OWN = 10.0
# How much a replica's last lag counts beside what was known of it.
_NEWEST_PART = 0.5


class Exchange(Protocol):
    """The other replicas."""

    def ready(self) -> Sequence[Place]:
        """Who can be given a share now."""

    def begin(
        self, shares: Mapping[Place, Outgoing], weights: Mapping[str, Tensor]
    ) -> Mapping[Place, Future[Answer | None]]:
        """Sends the shares; each future is its answer, None where it failed."""


class SharedGradient:
    """Gives each ready replica a share, computes its own meanwhile, and what others fail to.

    Weights and gradients take time to travel, so a share is the smaller the more its replica has
    lagged behind in the steps before.
    """

    def __init__(self, objective: ObjectiveName, exchange: Exchange) -> None:
        self._objective = objective
        self._loss = objective_named(objective)
        self._local = LocalGradient(self._loss)
        self._exchange = exchange
        # In units of cost: how much later than replica 0 each would have ended the same share.
        self._lags: dict[Place, float] = {}

    def differentiate(self, draft: Decoder, samples: Sequence[Sample]) -> Measure:
        others = tuple(self._exchange.ready())[: len(samples) - 1]
        self._lags = {place: self._lags[place] for place in others if place in self._lags}
        if not others:
            return self._local.differentiate(draft, samples)
        return self._shared(draft, samples, others)

    def _shared(
        self, draft: Decoder, samples: Sequence[Sample], others: tuple[Place, ...]
    ) -> Measure:
        began = time.monotonic()
        costs = [sample_cost(draft, sample) for sample in samples]
        parts = shares(costs, (0.0, *(self._lags.get(place, 0.0) for place in others)))
        entries = smallest_entries(samples)
        own, *sent = [pack([samples[i] for i in part], entries=entries) for part in parts]
        positions = sum(sample.output_count for sample in samples)
        futures = self._exchange.begin(
            {
                place: self._outgoing(draft, batch, positions)
                for place, batch in zip(others, sent, strict=True)
            },
            parameters(draft),
        )
        measures = [differentiate(draft, own, self._loss, positions=positions)]
        own_seconds = time.monotonic() - began
        deadline = began + max(_LEAST_WAIT_SECONDS, _WAIT_OVER_OWN * own_seconds)
        answers = 0
        own_cost = sum(costs[i] for i in parts[0])
        for place, batch, part in zip(others, sent, parts[1:], strict=True):
            found = _waited_for(futures[place], deadline - time.monotonic())
            if found is None:
                measures.append(differentiate(draft, batch, self._loss, positions=positions))
                continue
            _add(draft, found)
            measures.append(found.measure)
            answers += 1
            lag = found.seconds * own_cost / own_seconds - sum(costs[i] for i in part)
            known = self._lags.get(place, lag)
            self._lags[place] = known + _NEWEST_PART * (lag - known)
        return Measure(
            sum(each.loss for each in measures),
            sum(each.acceptance for each in measures),
            replicas=1 + answers,
        )

    def _outgoing(self, draft: Decoder, batch: Batch, positions: int) -> Outgoing:
        return Outgoing(
            draft_config=config_text(draft.config),
            objective=self._objective,
            positions=positions,
            lengths=batch.lengths,
            batch=batch_tensors(batch),
        )


def sample_cost(draft: Decoder, sample: Sample) -> float:
    """About the multiplications of a sample: each token's layers, and each output's logits."""
    config = draft.config
    layers = sum(parameter.numel() for parameter in draft.layers.parameters())
    return (
        len(sample.tokens) * layers + sample.output_count * config.vocab_size * config.hidden_size
    )


def _waited_for(future: Future[Answer | None], seconds: float) -> Answer | None:
    try:
        return future.result(max(0.0, seconds))
    except (TimeoutError, CancelledError):
        future.cancel()
        return None


@torch.no_grad()
def _add(draft: Decoder, found: Answer) -> None:
    for name, parameter in draft.named_parameters():
        gradient = found.gradients[name]
        if parameter.grad is None:
            parameter.grad = gradient.clone()
        else:
            parameter.grad += gradient
