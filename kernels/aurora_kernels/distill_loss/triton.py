"""Log-probabilities over buckets on a GPU: cuBLAS multiplies, one kernel a pass does the rest."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurora_kernels.distill_loss.blocked import bucket_log_probs as blocked_log_probs
from aurora_kernels.placement import check_placement

# Tokens of the vocabulary whose logits are in memory at a time.
COLUMNS = 8192
# Of which a program reads so many at once.
_TILE = 2048


def bucket_log_probs(
    hidden: Tensor, head: Tensor, top_ids: Tensor, *, columns: int = COLUMNS, tile: int = _TILE
) -> Tensor:
    """As the reference, for float32, bfloat16 and float16; sums are float32."""
    return blocked_log_probs(hidden, head, top_ids, steps=_TritonSteps(tile), columns=columns)


class _TritonSteps:
    """One program a row; a block of logits is read once, and written once in the backward pass."""

    def __init__(self, tile: int) -> None:
        self._tile = tile

    def reduce(self, block: Tensor, start: int, ids: Tensor, sums: Tensor) -> None:
        _reduce_block(block, start, ids.contiguous(), sums, self._tile)

    def differentiate(
        self, block: Tensor, start: int, ids: Tensor, tail: Tensor, by_bucket: Tensor
    ) -> None:
        by_bucket = by_bucket.contiguous()
        _differentiate_block(block, start, ids.contiguous(), tail, by_bucket, self._tile)


# As operations of torch's own, so that they run on tensors without data too.
@torch.library.custom_op("aurora::distill_reduce", mutates_args={"block", "sums"})
def _reduce_block(block: Tensor, start: int, ids: Tensor, sums: Tensor, tile: int) -> None:
    rows, count = ids.shape
    places = triton.next_power_of_2(count)
    _reduce[(rows,)](block, ids, sums, start, block.shape[1], count, PLACES=places, TILE=tile)


@_reduce_block.register_fake
def _(block: Tensor, start: int, ids: Tensor, sums: Tensor, tile: int) -> None:
    check_placement(block, ids, sums)


@torch.library.custom_op("aurora::distill_differentiate", mutates_args={"block"})
def _differentiate_block(
    block: Tensor, start: int, ids: Tensor, tail: Tensor, by_bucket: Tensor, tile: int
) -> None:
    rows, count = ids.shape
    places = triton.next_power_of_2(count)
    _differentiate[(rows,)](
        block, ids, tail, by_bucket, start, block.shape[1], count, PLACES=places, TILE=tile
    )


@_differentiate_block.register_fake
def _(block: Tensor, start: int, ids: Tensor, tail: Tensor, by_bucket: Tensor, tile: int) -> None:
    check_placement(block, ids, tail, by_bucket)


@triton.jit
def _reduce(
    block, ids, sums, start, width, count, PLACES: tl.constexpr, TILE: tl.constexpr
) -> None:
    """Moves a row's top-k logits to its sums and adds the other tokens to its tail."""
    row = tl.program_id(0).to(tl.int64)
    logits = block + row * width
    place = tl.arange(0, PLACES)
    column = tl.load(ids + row * count + place, mask=place < count, other=-1) - start
    inside = (column >= 0) & (column < width) & (place < count)
    top = tl.load(logits + column, mask=inside, other=0.0)
    # No thread may read what another is about to overwrite, nor before it has.
    tl.debug_barrier()
    tl.store(sums + row * (count + 1) + place, top, mask=inside)
    tl.store(logits + column, tl.full((PLACES,), float("-inf"), top.dtype), mask=inside)
    tl.debug_barrier()
    highest = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    for first in range(0, width, TILE):
        at = first + tl.arange(0, TILE)
        logit = tl.load(logits + at, mask=at < width, other=float("-inf"))
        higher = tl.maximum(highest, logit)
        # Without a token yet, the difference of two infinities is not a number.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(highest - base) + tl.exp(logit - base)
        highest = higher
    former = tl.load(sums + row * (count + 1) + count)
    most = tl.maximum(tl.max(highest, axis=0), former)
    base = tl.where(most == float("-inf"), 0.0, most)
    mass = tl.sum(total * tl.exp(highest - base), axis=0) + tl.exp(former - base)
    total_log = tl.where(mass > 0, tl.log(tl.where(mass > 0, mass, 1.0)), float("-inf"))
    tl.store(sums + row * (count + 1) + count, base + total_log)


@triton.jit
def _differentiate(
    block, ids, tails, by_bucket, start, width, count, PLACES: tl.constexpr, TILE: tl.constexpr
) -> None:
    """Replaces a row's logits with their gradient."""
    row = tl.program_id(0).to(tl.int64)
    logits = block + row * width
    tail = tl.load(tails + row)
    by_tail = tl.load(by_bucket + row * (count + 1) + count)
    for first in range(0, width, TILE):
        at = first + tl.arange(0, TILE)
        logit = tl.load(logits + at, mask=at < width, other=0.0)
        # No token of the tail exceeds its log sum; the top-k, which may, are overwritten next.
        share = tl.exp(tl.minimum(logit - tail, 0.0))
        tl.store(logits + at, share * by_tail, mask=at < width)
    tl.debug_barrier()
    place = tl.arange(0, PLACES)
    column = tl.load(ids + row * count + place, mask=place < count, other=-1) - start
    inside = (column >= 0) & (column < width) & (place < count)
    by_top = tl.load(by_bucket + row * (count + 1) + place, mask=inside, other=0.0)
    tl.store(logits + column, by_top, mask=inside)
