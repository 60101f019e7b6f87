"""Loss and acceptance of a draft on packed batches, and the gradient of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from aurora_kernels.distill_loss import bucket_log_probs, log_probs_of_logits, rows_at_once
from aurora_model.device import on_host
from aurora_model.draft import Draft, Predictions
from aurora_trainer.data.batch import Batch, pack, row_chunks, slices
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import TaughtBatch
from aurora_trainer.learning.objective import Buckets, acceptance_interval, joined

Loss: TypeAlias = Callable[[Buckets], Tensor]
AnyBatch: TypeAlias = Batch | TaughtBatch
Pack: TypeAlias = Callable[[Sequence[Sample]], AnyBatch]

_EVALUATION_BATCH = 16


@dataclass(frozen=True, slots=True)
class Unroll:
    """How far a draft is trained ahead, if its later tokens depend on its own states.

    A position is predicted as the first to the last of `steps` tokens of a proposal, each of which
    weighs `decay` times the one before. The defaults are SpecForge's.
    """

    steps: int = 7
    decay: float = 0.8


@dataclass(frozen=True, slots=True)
class Measure:
    """Means over positions, each the weighted mean of its predictions.

    `acceptance`: at least so much is accepted, whatever the draft makes of the target's tail.
    `applied`: False for a step that was skipped as not finite; `replicas`: how many computed it.
    """

    loss: float
    acceptance: float
    applied: bool = True
    replicas: int = 1


def differentiate(
    draft: Draft, batch: AnyBatch, loss: Loss, *, positions: int, unroll: Unroll = Unroll()
) -> Measure:
    """Adds the gradient of Σ loss / positions to the parameters' `grad`.

    `positions`: how many there are in all, of which the batch may be a share. The means returned
    are over all of them too, so that both add up over the shares.
    """
    made = _predictions(draft, batch, unroll)
    # Backward runs chunk by chunk down to here, then once through the rest.
    leaf = made.features.detach().requires_grad_()
    sums = _Sums(2, leaf.device)
    for chunk in _chunks(draft, made._replace(features=leaf), batch, loss, unroll):
        share = chunk.loss / positions
        share.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        sums.add(share.detach(), chunk.acceptance)
    if leaf.grad is not None:  # else there is nothing to predict
        made.features.backward(leaf.grad)  # type: ignore[no-untyped-call]
    total, acceptances = sums.on_host()
    return Measure(total, acceptances / positions)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means as a Measure's, but that of a greedy request a token is accepted if it is the draft's
    most probable one. `acceptance_upper`: at most so much is accepted.
    """

    loss: float
    acceptance: float
    acceptance_upper: float


@torch.no_grad()
def evaluate(
    draft: Draft,
    samples: Sequence[Sample],
    loss: Loss,
    *,
    packed: Pack = pack,
    unroll: Unroll = Unroll(),
) -> Evaluation | None:
    """Mean loss and expected acceptance over the samples' positions; None without samples."""
    total = least = most = 0.0
    count = 0
    for start in range(0, len(samples), _EVALUATION_BATCH):
        part = samples[start : start + _EVALUATION_BATCH]
        batch = packed(part)
        made = _predictions(draft, batch, unroll)
        sums = _Sums(3, made.features.device)
        for chunk in _chunks(draft, made, batch, loss, unroll, _served(part, batch.rows.device)):
            sums.add(chunk.loss, chunk.acceptance, chunk.acceptance_upper)
        loss_sum, least_sum, most_sum = sums.on_host()
        total += loss_sum
        least += least_sum
        most += most_sum
        count += len(batch.rows)
    return Evaluation(total / count, least / count, most / count) if count else None


class _Served(NamedTuple):
    """Of the M predicting positions: the token that was served, int64 [M], and whether greedily,
    bool [M].
    """

    tokens: Tensor
    greedy: Tensor


class _Chunk(NamedTuple):
    """Sums over the rows whose logits are in memory together."""

    loss: Tensor
    acceptance: Tensor
    acceptance_upper: Tensor


class _Sums:
    """Sums of `count` numbers, which stay on the device until they are asked for."""

    def __init__(self, count: int, device: torch.device) -> None:
        self._sums = torch.zeros(count, dtype=torch.float64, device=device)

    def add(self, *numbers: Tensor) -> None:
        self._sums += torch.stack(numbers)

    def on_host(self) -> list[float]:
        (sums,) = on_host((self._sums,))
        return [float(each) for each in sums]


def _served(samples: Sequence[Sample], device: torch.device) -> _Served | None:
    """None if no request is greedy."""
    if not any(sample.is_greedy for sample in samples):
        return None
    tokens = np.concatenate([sample.tokens[-sample.output_count :] for sample in samples])
    greedy = np.repeat(
        [sample.is_greedy for sample in samples], [sample.output_count for sample in samples]
    )
    return _Served(torch.from_numpy(tokens).long().to(device), torch.from_numpy(greedy).to(device))


def _predictions(draft: Draft, batch: AnyBatch, unroll: Unroll) -> Predictions:
    hidden = batch.hidden if isinstance(batch, TaughtBatch) else None
    return draft.unrolled(batch, hidden, steps=unroll.steps)


def _chunks(
    draft: Draft,
    made: Predictions,
    batch: AnyBatch,
    loss: Loss,
    unroll: Unroll,
    served: _Served | None = None,
) -> Iterator[_Chunk]:
    weights = unroll.decay ** made.steps.float()
    of_row = weights.new_zeros(len(batch.rows)).index_add(0, made.rows, weights)
    weights = weights / of_row[made.rows]
    for part in _parts(draft, made, batch):
        both = _buckets(draft, made.features[part], batch, made.rows[part])
        least, most = acceptance_interval(both)
        if served is not None:
            rows = made.rows[part]
            agrees = _most_probable(draft, made.features[part]) == served.tokens[rows]
            greedy = served.greedy[rows]
            least = torch.where(greedy, agrees.to(least.dtype), least)
            most = torch.where(greedy, agrees.to(most.dtype), most)
        yield _Chunk(
            (loss(both) * weights[part]).sum(),
            (least * weights[part]).detach().sum(),
            (most * weights[part]).detach().sum(),
        )


def _most_probable(draft: Draft, features: Tensor) -> Tensor:
    """The token that a greedy draft proposes, int64 [R], by the target's ids."""
    found = draft.logits(features).argmax(dim=-1)
    return found if draft.token_ids is None else draft.token_ids[found]


def _parts(draft: Draft, made: Predictions, batch: AnyBatch) -> Iterator[slice]:
    """The predictions whose loss is computed together."""
    weight, size = draft.output_weight, draft.config.vocab_size
    if weight is None or isinstance(batch, TaughtBatch):
        return row_chunks(len(made.rows), size)
    return slices(len(made.rows), rows_at_once(size, weight.device))


def _buckets(draft: Draft, features: Tensor, batch: AnyBatch, rows: Tensor) -> Buckets:
    if isinstance(batch, Batch):
        weight, ids = draft.output_weight, batch.top_ids[rows]
        if weight is None:
            log_probs = log_probs_of_logits(draft.logits(features), ids)
        else:
            log_probs = bucket_log_probs(features, weight, ids)
        size = draft.config.vocab_size
        return joined(log_probs, size, batch.log_probs[rows], batch.tail_mass[rows])
    logits = draft.logits(features)
    # Rows ascend: each distribution is computed once for all its predictions.
    distinct, index = (
        torch.from_numpy(each).to(rows.device)
        for each in np.unique(on_host((rows,))[0], return_inverse=True)
    )
    target = batch.log_probs(distinct, draft.token_ids)[index, : logits.shape[-1]]
    return Buckets(target.exp(), target, logits.log_softmax(dim=-1), has_tail=False)


class LocalGradient:
    """Computes gradients in this process."""

    def __init__(self, loss: Loss, *, packed: Pack = pack, unroll: Unroll = Unroll()) -> None:
        self._loss = loss
        self._packed = packed
        self._unroll = unroll

    def differentiate(self, draft: Draft, samples: Sequence[Sample]) -> Measure:
        batch = self._packed(samples)
        positions = len(batch.rows)
        return differentiate(draft, batch, self._loss, positions=positions, unroll=self._unroll)
