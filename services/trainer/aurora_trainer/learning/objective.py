"""Training objectives: divergences between target and draft over top-k and tail.

The target's distribution at a position is recorded as its k most probable tokens and the mass of
the rest, so both distributions are compared over the buckets S = top-k ∪ {tail}. By the data
processing inequality every divergence over S is a lower bound of the one over the whole vocabulary,
and equal to it for k = V. All functions are per position: N positions in, `[N]` out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

ObjectiveName = Literal["ForwardKL", "LK"]

# How fast training moves from likelihood to acceptance: η of arXiv 2602.23881.
_LIKELIHOOD_DECAY = 3.0


@dataclass(frozen=True, slots=True)
class Buckets:
    """Both distributions over the same buckets, `[N, k + 1]`, tail last; `[N, k]` without a tail.

    Without a tail the target's need not sum to 1: what the draft cannot propose is left out.
    """

    target_probs: Tensor
    target_log_probs: Tensor
    draft_log_probs: Tensor
    has_tail: bool


def forward_kl(
    draft_logits: Tensor, top_ids: Tensor, target_log_probs: Tensor, target_tail_mass: Tensor
) -> Tensor:
    """KL_S(target ‖ draft), `[N]`.

    draft_logits [N, V] finite; top_ids [N, k] int64, distinct in a row; target_log_probs [N, k];
    target_tail_mass [N], with exp(target_log_probs).sum(-1) + target_tail_mass = 1.
    """
    return kl_divergence(buckets(draft_logits, top_ids, target_log_probs, target_tail_mass))


def overlap(
    draft_logits: Tensor, top_ids: Tensor, target_log_probs: Tensor, target_tail_mass: Tensor
) -> Tensor:
    """α = Σ_S min(target, draft), `[N]`: how likely the target accepts the draft's proposal.

    Arguments as for forward_kl. An upper bound for k < V, exact for k = V.
    """
    return acceptance(buckets(draft_logits, top_ids, target_log_probs, target_tail_mass))


def lk_loss(
    draft_logits: Tensor, top_ids: Tensor, target_log_probs: Tensor, target_tail_mass: Tensor
) -> Tensor:
    """λ·KL_S + (1 − λ)·TV_S with λ = exp(−3·stopgrad(α)), `[N]` (LK loss, arXiv 2602.23881).

    Arguments as for forward_kl.
    """
    return likelihood_to_acceptance(
        buckets(draft_logits, top_ids, target_log_probs, target_tail_mass)
    )


def buckets(
    draft_logits: Tensor, top_ids: Tensor, target_log_probs: Tensor, target_tail_mass: Tensor
) -> Buckets:
    """Both distributions over top-k and tail; arguments as for forward_kl."""
    apply = cast(Callable[[Tensor, Tensor], Tensor], _BucketLogProbs.apply)
    draft = apply(draft_logits, top_ids)
    target = torch.cat([target_log_probs, target_tail_mass.log().unsqueeze(-1)], dim=-1)
    # The top-k may be the whole vocabulary: then there is no tail.
    has_tail = top_ids.shape[-1] < draft_logits.shape[-1]
    if not has_tail:
        target, draft = target[:, :-1], draft[:, :-1]
    return Buckets(target.exp(), target, draft, has_tail)


def kl_divergence(both: Buckets) -> Tensor:
    """KL(target ‖ draft) over the buckets, `[N]`; buckets without target mass add nothing."""
    terms = both.target_probs * (both.target_log_probs - both.draft_log_probs)
    return torch.where(both.target_probs > 0, terms, 0.0).sum(dim=-1)


def acceptance(both: Buckets) -> Tensor:
    """Σ min(target, draft) over the buckets, `[N]`: an upper bound if there is a tail."""
    return torch.minimum(both.target_probs, both.draft_log_probs.exp()).sum(dim=-1)


def acceptance_interval(both: Buckets) -> tuple[Tensor, Tensor]:
    """The least and the most that may be accepted, `[N]` each.

    Two distributions that agree on the tail's mass may differ on each of its tokens: at least
    nothing of it is accepted, at most all that both have there. Equal without a tail.
    """
    overlaps = torch.minimum(both.target_probs, both.draft_log_probs.exp())
    most = overlaps.sum(dim=-1)
    return (most - overlaps[:, -1] if both.has_tail else most), most


def likelihood_to_acceptance(both: Buckets) -> Tensor:
    """The LK loss over the buckets, `[N]`."""
    variation = (both.target_probs - both.draft_log_probs.exp()).abs().sum(dim=-1) / 2
    likelihood = torch.exp(-_LIKELIHOOD_DECAY * acceptance(both).detach())
    return likelihood * kl_divergence(both) + (1 - likelihood) * variation


def objective_named(name: ObjectiveName) -> Callable[[Buckets], Tensor]:
    """The loss that a manifest names."""
    match name:
        case "ForwardKL":
            return kl_divergence
        case "LK":
            return likelihood_to_acceptance


class _BucketLogProbs(torch.autograd.Function):
    """log softmax of `[N, V]` logits over top-k and tail, `[N, k + 1]`.

    The tail's log mass is the logsumexp of the other logits rather than log(1 − Σ top-k), which has
    an infinite gradient once the top-k carry nearly all of the mass. The backward pass is by hand
    because autograd would walk `[N, V]` eight times instead of twice.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, logits: Tensor, ids: Tensor) -> Tensor:
        tail = logits.scatter(-1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        log_sums = torch.cat([logits.gather(-1, ids), tail], dim=-1)  # [N, k + 1]
        log_probs = log_sums - log_sums.logsumexp(dim=-1, keepdim=True)
        ctx.save_for_backward(logits, ids, tail, log_probs)
        return log_probs

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        logits, ids, tail, log_probs = ctx.saved_tensors  # type: ignore[attr-defined]
        # [N, k + 1]: d/d(log sum of a bucket), softmax over buckets
        by_bucket = gradient - log_probs.exp() * gradient.sum(dim=-1, keepdim=True)
        # A tail token gets its share of the tail's gradient; the top-k are overwritten next.
        by_token = (logits - tail).exp_().mul_(by_bucket[:, -1:])
        return by_token.scatter_(-1, ids, by_bucket[:, :-1]), None
