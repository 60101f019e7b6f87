"""A draft's log-probabilities over the target's top-k and their tail, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def bucket_log_probs(hidden: Tensor, head: Tensor, top_ids: Tensor) -> Tensor:
    """log softmax of hidden @ headᵀ over the buckets top-k ∪ {tail}, `[N, k + 1]`, tail last.

    hidden [N, D] and head [V, D] of one floating dtype, with finite products; top_ids [N, k] int64,
    distinct in a row. The result is at least float32. A distillation loss is a function of these
    few numbers a position, so its gradients of hidden and head follow from theirs. For k = V the
    tail is -inf.

    The tail's log mass is the logsumexp of the other logits rather than log(1 - Σ top-k), which has
    an infinite gradient once the top-k carry nearly all of the mass.
    """
    logits = hidden @ head.T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top = logits.gather(-1, top_ids)
    if top_ids.shape[-1] == logits.shape[-1]:
        # logsumexp of nothing has no gradient.
        tail = torch.full_like(top[:, :1], -torch.inf)
    else:
        tail = logits.scatter(-1, top_ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([top, tail], dim=-1) - logits.logsumexp(dim=-1, keepdim=True)
