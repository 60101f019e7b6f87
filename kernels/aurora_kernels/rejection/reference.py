"""The accept/reject rule of speculative decoding, in plain torch.

Leviathan, Kalman, Matias: "Fast Inference from Transformers via Speculative Decoding" (2023),
algorithm 1; Chen et al.: "Accelerating Large Language Model Decoding with Speculative Sampling"
(2023), algorithm 2. The resulting tokens are distributed as the target's, whatever the draft.
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
    uniforms: Tensor,
) -> Verdict:
    """Accepts drafted token i with probability min(1, target/draft), up to the first rejection.

    target_probs [B, K+1, V] and draft_probs [B, K, V] float32, both after the same temperature and
    truncation; drafted [B, K] int64, drawn from draft_probs; lengths [B] int64, how many of a row's
    drafts count; uniforms [B, K+1] in [0, 1): one for each draft and one for the next token. The
    next token comes from the residual max(target - draft, 0) after a rejection, from the target
    if every draft was accepted.
    """
    rows, count = drafted.shape
    index = drafted.unsqueeze(-1)
    target_at = target_probs[:, :count].gather(-1, index).squeeze(-1)  # [B, K]
    draft_at = draft_probs.gather(-1, index).squeeze(-1)
    keep = uniforms[:, :count] * draft_at < target_at
    keep &= torch.arange(count, device=drafted.device) < lengths.unsqueeze(-1)
    accepted = keep.long().cumprod(dim=-1).sum(dim=-1)  # [B]

    row = torch.arange(rows, device=drafted.device)
    target_next = target_probs[row, accepted]  # [B, V]
    if count == 0:
        return Verdict(accepted, draw(target_next, uniforms[:, count]))
    draft_next = draft_probs[row, accepted.clamp_max(count - 1)]
    rejected = (accepted < lengths).unsqueeze(-1)
    next_probs = torch.where(rejected, residual_probs(target_next, draft_next), target_next)
    return Verdict(accepted, draw(next_probs, uniforms[:, count]))


def verify_greedy(target_tokens: Tensor, drafted: Tensor, lengths: Tensor) -> Verdict:
    """`verify` for distributions that have all their mass on one token.

    target_tokens [B, K+1] int64, the target's argmax at each position; drafted [B, K]; lengths [B].
    """
    count = drafted.shape[1]
    keep = drafted == target_tokens[:, :count]
    keep &= torch.arange(count, device=drafted.device) < lengths.unsqueeze(-1)
    accepted = keep.long().cumprod(dim=-1).sum(dim=-1)
    return Verdict(accepted, target_tokens.gather(1, accepted.unsqueeze(-1)).squeeze(-1))


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
