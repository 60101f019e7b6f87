"""The most probable tokens on a GPU: the logits are read once, their log-softmax is not written.

A program for each part of a row finds the part's top and its sum; one for each row joins them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurora_kernels.capture.reference import Captured

# Tokens that a program reads.
_PART = 4096


def capture(logits: Tensor, count: int, *, part: int = _PART) -> Captured:
    """As the reference; among equal logits the lowest ids come first."""
    return Captured(*_capture(logits.contiguous(), min(count, logits.shape[-1]), part))


def _uninitialized(logits: Tensor, count: int, part: int) -> tuple[Tensor, Tensor]:
    rows = len(logits)
    ids = torch.empty(rows, count, dtype=torch.int64, device=logits.device)
    return ids, logits.new_empty(rows, count)


# As an operation of torch's own, so that it runs on tensors without data too.
@torch.library.custom_op("aurora::capture", mutates_args=())
def _capture(logits: Tensor, count: int, part: int) -> tuple[Tensor, Tensor]:
    rows, vocabulary = logits.shape
    # A sort needs two.
    places = max(triton.next_power_of_2(count), 2)
    part = max(part, places)
    parts = triton.cdiv(vocabulary, part)
    keys = torch.empty(rows, parts, places, dtype=torch.int64, device=logits.device)
    sums = logits.new_empty(rows, parts, 2)
    found = _uninitialized(logits, count, part)
    _top_of_part[rows, parts](logits, keys, sums, vocabulary, PART=part, PLACES=places)
    padded = triton.next_power_of_2(parts)
    _join[(rows,)](keys, sums, *found, parts, count, PARTS=padded, PLACES=places)
    return found


_capture.register_fake(_uninitialized)


@triton.jit
def _top_of_part(logits, keys, sums, vocabulary, PART: tl.constexpr, PLACES: tl.constexpr) -> None:
    """The highest logits of a part of a row, their ids with them, and its sum of exponentials.

    A key is a logit's order in the high half, and in the low half what is greater for lower ids.
    """
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    parts = tl.num_programs(1)
    at = part * PART + tl.arange(0, PART)
    logit = tl.load(logits + row * vocabulary + at, mask=at < vocabulary, other=float("-inf"))
    highest = tl.max(logit, axis=0)
    base = tl.where(highest == float("-inf"), 0.0, highest)
    place = row * parts + part
    tl.store(sums + place * 2, highest)
    tl.store(sums + place * 2 + 1, tl.sum(tl.exp(logit - base), axis=0))
    bits = logit.to(tl.int32, bitcast=True)
    order = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    key = order * 4294967296 + (2147483647 - at)
    # Below every logit, -inf too.
    key = tl.where(at < vocabulary, key, -9223372036854775807)
    tl.store(keys + place * PLACES + tl.arange(0, PLACES), tl.topk(key, PLACES))


@triton.jit
def _join(
    keys, sums, ids, log_probs, parts, count, PARTS: tl.constexpr, PLACES: tl.constexpr
) -> None:
    """The top of a row from that of its parts."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    places = (row * parts + part) * 2
    base = tl.load(sums + places, mask=part < parts, other=float("-inf"))
    highest = tl.max(base, axis=0)
    total = tl.load(sums + places + 1, mask=part < parts, other=0.0)
    log_total = tl.log(tl.sum(total * tl.exp(base - highest), axis=0))
    at = tl.arange(0, PARTS * PLACES)
    key = tl.load(
        keys + row * parts * PLACES + at, mask=at < parts * PLACES, other=-9223372036854775807
    )
    top = tl.topk(key, PLACES)
    order = (top >> 32).to(tl.int32)
    bits = order ^ ((order >> 31) & 0x7FFFFFFF)
    # In this order, so that large logits do not swallow the logarithm.
    log_prob = (bits.to(tl.float32, bitcast=True) - highest) - log_total
    place = tl.arange(0, PLACES)
    token = 2147483647 - (top & 0xFFFFFFFF)
    tl.store(ids + row * count + place, token, mask=place < count)
    tl.store(log_probs + row * count + place, log_prob, mask=place < count)
