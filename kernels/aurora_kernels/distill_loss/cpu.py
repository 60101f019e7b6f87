"""Log-probabilities over buckets on the CPU: logits kept where they are few, else in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from aurora_kernels.distill_loss.blocked import bucket_log_probs as blocked_log_probs
from aurora_kernels.distill_loss.blocked import gradient_by_sum, normalized

# How many logits are in memory at a time: 4 MiB stay in the cache. So many are kept for the
# backward pass; more are multiplied again.
_LOGITS = 1 << 20
# For fewer rows the head's gradient is added up too often.
_LEAST_ROWS, _ROWS_IN_BLOCKS = 64, 1024


def rows_at_once(vocabulary: int) -> int:
    """How many positions are fastest together."""
    kept = _LOGITS // vocabulary
    return kept if kept >= _LEAST_ROWS else _ROWS_IN_BLOCKS


def bucket_log_probs(hidden: Tensor, head: Tensor, top_ids: Tensor) -> Tensor:
    """As the reference."""
    if len(hidden) * len(head) <= _LOGITS:
        return log_probs_of_logits(F.linear(hidden, head), top_ids)
    columns = max(_LOGITS // len(hidden), 1)
    return blocked_log_probs(hidden, head, top_ids, steps=CpuSteps(), columns=columns)


def log_probs_of_logits(logits: Tensor, top_ids: Tensor) -> Tensor:
    """The same of logits [N, V] that are in memory."""
    return cast(Callable[[Tensor, Tensor], Tensor], _OfLogits.apply)(logits, top_ids)


class CpuSteps:
    """What is done to a block of logits, in plain torch."""

    def reduce(self, block: Tensor, start: int, ids: Tensor, sums: Tensor) -> None:
        row, place = _inside(block, start, ids)
        column = ids[row, place] - start
        sums[row, place] = block[row, column]
        block[row, column] = -torch.inf
        torch.logaddexp(sums[:, -1], block.logsumexp(dim=-1), out=sums[:, -1])

    def differentiate(
        self, block: Tensor, start: int, ids: Tensor, tail: Tensor, by_bucket: Tensor
    ) -> None:
        # A tail token gets its share of the tail's gradient; the top-k are overwritten next.
        block.sub_(tail).exp_().mul_(by_bucket[:, -1:])
        row, place = _inside(block, start, ids)
        block[row, ids[row, place] - start] = by_bucket[row, place]


def _inside(block: Tensor, start: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and places of the ids that are in a block."""
    row, place = ((ids >= start) & (ids < start + block.shape[1])).nonzero(as_tuple=True)
    return row, place


class _OfLogits(torch.autograd.Function):
    """By hand, because autograd would walk `[N, V]` eight times instead of twice."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, logits: Tensor, ids: Tensor) -> Tensor:
        tail = logits.scatter(-1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        log_probs = normalized(torch.cat([logits.gather(-1, ids), tail], dim=-1))
        ctx.save_for_backward(logits, ids, tail, log_probs)
        return log_probs

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        logits, ids, tail, log_probs = ctx.saved_tensors  # type: ignore[attr-defined]
        by_bucket = gradient_by_sum(gradient, log_probs)
        by_token = (logits - tail).exp_().mul_(by_bucket[:, -1:])
        return by_token.scatter_(-1, ids, by_bucket[:, :-1]), None
