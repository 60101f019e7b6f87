"""The gradient of a batch's loss, and what was measured on the way to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from aurora_model.decoder import Decoder
from aurora_trainer.batch import Batch, pack, packed_attend
from aurora_trainer.objective import Buckets, acceptance, buckets
from aurora_trainer.sample import Sample

Loss: TypeAlias = Callable[[Buckets], Tensor]

# Logits are made for so many values at a time: they stay in the cache, and a vocabulary of 150,000
# does not cost gigabytes.
_LOGITS_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Measure:
    """Means over positions; `applied` is False for a step that was skipped as not finite.

    `replicas` computed it.
    """

    loss: float
    acceptance: float
    applied: bool = True
    replicas: int = 1


def differentiate(draft: Decoder, batch: Batch, loss: Loss, *, positions: int) -> Measure:
    """Adds the gradient of Σ loss / positions to the parameters' `grad`.

    `positions`: how many there are in all, of which the batch may be a share; what it returns is
    divided by it as well, so both add up over the shares.
    """
    hidden = draft(batch.tokens, batch.positions, packed_attend(batch.lengths))
    selected = hidden[0, batch.rows]  # [M, hidden]
    # Chunks of logits are differentiated one by one, down to here; the rest once.
    leaf = selected.detach().requires_grad_()
    total = acceptances = 0.0
    for rows in row_chunks(batch, draft.config.vocab_size):
        both = buckets(
            draft.logits(leaf[rows]),
            batch.top_ids[rows],
            batch.log_probs[rows],
            batch.tail_mass[rows],
        )
        share = loss(both).sum() / positions
        share.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        total += share.item()
        acceptances += float(acceptance(both).detach().sum()) / positions
    selected.backward(leaf.grad)
    return Measure(total, acceptances)


def row_chunks(batch: Batch, vocab_size: int) -> list[slice]:
    """The batch's rows in parts whose logits are to be in memory together."""
    size = max(64, _LOGITS_CHUNK // vocab_size)
    return [slice(start, start + size) for start in range(0, len(batch.rows), size)]


class LocalGradient:
    """Computes gradients in this process."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss

    def differentiate(self, draft: Decoder, samples: Sequence[Sample]) -> Measure:
        batch = pack(samples)
        return differentiate(draft, batch, self._loss, positions=len(batch.rows))
