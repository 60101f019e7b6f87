"""Training objectives: divergences between target and draft over top-k and tail.

The target's distribution at a position is recorded as its k most probable tokens and the mass of
the rest, so both distributions are compared over the buckets S = top-k ∪ {tail}. By the data
processing inequality every divergence over S is a lower bound of the one over the whole vocabulary,
and equal to it for k = V. All functions are per position: N positions in, `[N]` out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aurora_kernels.distill_loss import log_probs_of_logits

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
    draft = log_probs_of_logits(draft_logits, top_ids)
    return joined(draft, draft_logits.shape[-1], target_log_probs, target_tail_mass)


def joined(
    draft: Tensor, vocabulary: int, target_log_probs: Tensor, target_tail_mass: Tensor
) -> Buckets:
    """The same from the draft's log-probabilities over top-k and tail, `[N, k + 1]`."""
    target = torch.cat([target_log_probs, target_tail_mass.log().unsqueeze(-1)], dim=-1)
    # The top-k may be the whole vocabulary: then there is no tail.
    has_tail = target_log_probs.shape[-1] < vocabulary
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
