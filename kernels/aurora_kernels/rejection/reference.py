"""The accept/reject rules of speculative decoding, in plain torch.

`verify` accepts as often as any rule can: Leviathan, Kalman, Matias: "Fast Inference from
Transformers via Speculative Decoding" (2023), algorithm 1; Chen et al.: "Accelerating Large
Language Model Decoding with Speculative Sampling" (2023), algorithm 2. `verify_coupled` accepts a
little less and says the same whatever the draft: Daliri, Musco, Suresh: "Coupling without
Communication and Drafter-Invariant Speculative Decoding" (arXiv 2408.07978). Under both, the
resulting tokens are distributed as the target's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Verdict(NamedTuple):
    """How much of each row's draft is accepted, and the token that follows it."""

    accepted: Tensor  # [B] int64, leading drafted tokens that the target accepts
    next_token: Tensor  # [B] int64, drawn after them: never one of the draft's


def verify(
    target_probs: Tensor,
    draft_probs: Tensor,
    drafted: Tensor,
    lengths: Tensor,
    accept_uniforms: Tensor,
    next_uniforms: Tensor,
) -> Verdict:
    """Accepts drafted token i with probability min(1, target/draft), up to the first rejection.

    target_probs [B, K+1, V] and draft_probs [B, K, V] float32, both after the same temperature and
    truncation; drafted [B, K] int64, drawn from draft_probs; lengths [B] int64, how many of a row's
    drafts count; accept_uniforms [B, K] and next_uniforms [B, K+1] in [0, 1), by position. The next
    token comes from the residual max(target - draft, 0) after a rejection, from the target if every
    draft was accepted.

    For a row whose target_probs are one-hot this is `verify_coupled`, be its draft_probs one-hot
    or 0.
    """
    rows, count = drafted.shape
    index = drafted.unsqueeze(-1)
    target_at = target_probs[:, :count].gather(-1, index).squeeze(-1)  # [B, K]
    draft_at = draft_probs.gather(-1, index).squeeze(-1)
    keep = accept_uniforms * draft_at < target_at
    keep &= torch.arange(count, device=drafted.device) < lengths.unsqueeze(-1)
    accepted = keep.long().cumprod(dim=-1).sum(dim=-1)  # [B]

    row = torch.arange(rows, device=drafted.device)
    target_next = target_probs[row, accepted]  # [B, V]
    next_uniform = next_uniforms[row, accepted]
    if count == 0:
        return Verdict(accepted, draw(target_next, next_uniform))
    draft_next = draft_probs[row, accepted.clamp_max(count - 1)]
    rejected = (accepted < lengths).unsqueeze(-1)
    next_probs = torch.where(rejected, residual_probs(target_next, draft_next), target_next)
    return Verdict(accepted, draw(next_probs, next_uniform))


def verify_coupled(target_tokens: Tensor, drafted: Tensor, lengths: Tensor) -> Verdict:
    """Accepts drafted tokens for as long as they are the target's own.

    target_tokens [B, K+1] int64, what the target says at each position: its argmax if decoding is
    greedy, `gumbel_argmax` with the noise that drafting used too; drafted [B, K]; lengths [B].
    """
    count = drafted.shape[1]
    keep = drafted == target_tokens[:, :count]
    keep &= torch.arange(count, device=drafted.device) < lengths.unsqueeze(-1)
    accepted = keep.long().cumprod(dim=-1).sum(dim=-1)
    return Verdict(accepted, target_tokens.gather(1, accepted.unsqueeze(-1)).squeeze(-1))


def gumbel_argmax(probs: Tensor, noise: Tensor) -> Tensor:
    """argmax(log probs + gumbel) over the last dimension: a draw from probs, fixed by the noise.

    probs and noise [..., V] float32, noise > 0 standard exponential: gumbel = -log(noise), so the
    argmax is that of probs / noise. Draws from p and q with the same noise agree with probability
    at least (1 - d) / (1 + d), d their total variation; `verify` accepts with 1 - d. Never returns
    an index of probability 0.
    """
    return (probs / noise).argmax(dim=-1)


def residual_probs(target_probs: Tensor, draft_probs: Tensor) -> Tensor:
    """norm(max(target - draft, 0)), [B, V] float32; rows without mass return target.

    A row has no mass if draft and target agree so closely that the difference underflows, or if the
    draft is not finite: rejection then carries no information, and target is exact.
    """
    residual = (target_probs - draft_probs).clamp_min(0.0)
    mass = residual.sum(dim=-1, keepdim=True)
    return torch.where(mass > 0, residual / mass, target_probs)


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draws one index for each row by inverting its cumulative sum.

    probs [..., V] float32, not necessarily of sum 1; uniforms [...] in [0, 1). Never returns an
    index of probability 0.
    """
    cumulative = probs.cumsum(dim=-1)
    total = cumulative[..., -1:]
    # Rounding may push the threshold up to the total itself: stay below it.
    threshold = (uniforms.unsqueeze(-1) * total).minimum(torch.nextafter(total, total * 0))
    index = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return index.clamp_max(probs.shape[-1] - 1)
