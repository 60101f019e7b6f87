"""Loss and acceptance of a draft on packed batches, and the gradient of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from aurora_model.draft import Draft
from aurora_trainer.data.batch import Batch, pack, row_chunks
from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.objective import Buckets, acceptance, buckets

Loss: TypeAlias = Callable[[Buckets], Tensor]

_EVALUATION_BATCH = 16


@dataclass(frozen=True, slots=True)
class Measure:
    """Means over positions.

    `applied`: False for a step that was skipped as not finite; `replicas`: how many computed it.
    """

    loss: float
    acceptance: float
    applied: bool = True
    replicas: int = 1


def differentiate(draft: Draft, batch: Batch, loss: Loss, *, positions: int) -> Measure:
    """Adds the gradient of Σ loss / positions to the parameters' `grad`.

    `positions`: how many there are in all, of which the batch may be a share. The means returned
    are over all of them too, so that both add up over the shares.
    """
    features = draft.features(batch)
    # Backward runs chunk by chunk down to here, then once through the rest.
    leaf = features.detach().requires_grad_()
    total = acceptances = 0.0
    for chunk in _chunks(draft, leaf, batch, loss):
        share = chunk.loss / positions
        share.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        total += share.item()
        acceptances += float(chunk.acceptance) / positions
    features.backward(leaf.grad)  # type: ignore[no-untyped-call]
    return Measure(total, acceptances)


@torch.no_grad()
def evaluate(draft: Draft, samples: Sequence[Sample], loss: Loss) -> Measure | None:
    """Mean loss and expected acceptance over the samples' positions; None without samples."""
    total = acceptances = 0.0
    count = 0
    for start in range(0, len(samples), _EVALUATION_BATCH):
        batch = pack(samples[start : start + _EVALUATION_BATCH])
        for chunk in _chunks(draft, draft.features(batch), batch, loss):
            total += float(chunk.loss)
            acceptances += float(chunk.acceptance)
        count += len(batch.rows)
    return Measure(total / count, acceptances / count) if count else None


class _Chunk(NamedTuple):
    """Sums over the rows whose logits are in memory together."""

    loss: Tensor
    acceptance: Tensor


def _chunks(draft: Draft, features: Tensor, batch: Batch, loss: Loss) -> Iterator[_Chunk]:
    for rows in row_chunks(len(batch.rows), draft.config.vocab_size):
        both = buckets(
            draft.logits(features[rows]),
            batch.top_ids[rows],
            batch.log_probs[rows],
            batch.tail_mass[rows],
        )
        yield _Chunk(loss(both).sum(), acceptance(both).detach().sum())


class LocalGradient:
    """Computes gradients in this process."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def differentiate(self, draft: Draft, samples: Sequence[Sample]) -> Measure:
        batch = pack(samples)
        return differentiate(draft, batch, self._loss, positions=len(batch.rows))
