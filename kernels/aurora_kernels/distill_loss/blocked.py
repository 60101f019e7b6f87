"""Log-probabilities over buckets without the logits of the whole vocabulary in memory.

The vocabulary passes by in blocks, each multiplied once for the sums and once more in the backward
pass. The products are the library's; what is done to a block of logits is the device's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class BlockSteps(Protocol):
    """What is done to the logits [N, C] of the vocabulary's tokens from `start` on."""

    def reduce(self, block: Tensor, start: int, ids: Tensor, sums: Tensor) -> None:
        """Adds a block to `sums` [N, k + 1]: the logits of the top-k, and the tail's log sum.

        Overwrites the block.
        """

    def differentiate(
        self, block: Tensor, start: int, ids: Tensor, tail: Tensor, by_bucket: Tensor
    ) -> None:
        """Replaces a block with the gradient of its logits.

        tail [N, 1]: the tail's log sum; by_bucket [N, k + 1]: the gradient by a bucket's log sum.
        """


def bucket_log_probs(
    hidden: Tensor, head: Tensor, top_ids: Tensor, *, steps: BlockSteps, columns: int
) -> Tensor:
    """As the reference; at most [N, columns] logits at a time, and [N, k + 1] kept for backward."""
    return cast(Tensor, _Blocked.apply(hidden, head, top_ids, steps, columns))  # type: ignore[no-untyped-call]


def normalized(sums: Tensor) -> Tensor:
    """Log-probabilities of buckets with these log sums, [N, k + 1]."""
    return sums - sums.logsumexp(dim=-1, keepdim=True)


def gradient_by_sum(gradient: Tensor, log_probs: Tensor) -> Tensor:
    """The gradient by the buckets' log sums from that by their log-probabilities, [N, k + 1]."""
    return gradient - log_probs.exp() * gradient.sum(dim=-1, keepdim=True)


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        head: Tensor,
        ids: Tensor,
        steps: BlockSteps,
        columns: int,
    ) -> Tensor:
        rows, count = ids.shape
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        sums = torch.full((rows, count + 1), -torch.inf, dtype=dtype, device=hidden.device)
        for start, block in _blocks(hidden, head, columns):
            steps.reduce(block, start, ids, sums)
        log_probs = normalized(sums)
        ctx.save_for_backward(hidden, head, ids, sums[:, -1:].clone(), log_probs)
        ctx.steps, ctx.columns = steps, columns  # type: ignore[attr-defined]
        return log_probs

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden, head, ids, tail, log_probs = ctx.saved_tensors  # type: ignore[attr-defined]
        by_bucket = gradient_by_sum(gradient, log_probs)
        by_hidden = torch.zeros_like(hidden, dtype=log_probs.dtype)
        by_head = torch.empty_like(head) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        for start, block in _blocks(hidden, head, ctx.columns):  # type: ignore[attr-defined]
            ctx.steps.differentiate(block, start, ids, tail, by_bucket)  # type: ignore[attr-defined]
            by_logit = block.to(hidden.dtype)
            part = slice(start, start + block.shape[1])
            by_hidden += by_logit @ head[part]
            if by_head is not None:
                torch.mm(by_logit.T, hidden, out=by_head[part])
        return by_hidden.to(hidden.dtype), by_head, None, None, None


def _blocks(hidden: Tensor, head: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """The vocabulary's logits, so many columns at a time, with the number of the first."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    for start in range(0, len(head), columns):
        yield start, (hidden @ head[start : start + columns].T).to(dtype)
