"""Objectives that the ablation tries beside the trainer's own; each is per position, `[N]`.

With target p and draft q over the buckets S and α = Σ_S min(p, q). All but the last leave a
position's context to others, as the trainer's own do.

Public Aurora and Draft-OPD (arXiv 2605.29343) add terms for rejected proposals, since their records
hold single tokens. Here a rejection is recorded with the target's whole distribution at that
position, and every one of these objectives takes mass from the token that was rejected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aurora_trainer.learning.objective import Buckets, acceptance

# What the target gives less than float16 records of it counts as this much.
_LEAST_LOG_PROB = -16.0
# Tokens of a proposal; as many as a step drafts when two drafts are compared.
_DRAFTED = 4


def negative_log_acceptance(both: Buckets) -> Tensor:
    """−log α (arXiv 2602.23881): the gradient of α, the stronger the less is accepted."""
    return -acceptance(both).clamp_min(torch.finfo(torch.float32).tiny).log()


def reverse_kl(both: Buckets) -> Tensor:
    """KL_S(q ‖ p) = Σ_S q · (log q − log p), which seeks p's modes (MiniLLM, arXiv 2306.08543)."""
    target = both.target_log_probs.clamp_min(_LEAST_LOG_PROB)
    return (both.draft_log_probs.exp() * (both.draft_log_probs - target)).sum(dim=-1)


def greedy_cross_entropy(both: Buckets) -> Tensor:
    """−log q(argmax p): what a greedy request gets is the label (Kim and Rush 2016)."""
    label = both.target_probs.argmax(dim=-1, keepdim=True)
    return -both.draft_log_probs.gather(-1, label).squeeze(-1)


def accepted_length(both: Buckets) -> Tensor:
    """−E[tokens accepted of a proposal] / K = −Σ_{k ≤ K} Π_{j < k} α_{i+j} / K from each row i on.

    The policy gradient whose reward is the accepted length: with the target's distribution at hand
    the expectation over what the draft proposes is exact, so that there is no variance for a
    baseline to reduce (REINFORCE, Williams 1992). Rows must follow each other as in the text, which
    those of a standalone draft do; the last three of an answer look into the next answer, and
    beyond the last row all is accepted.
    """
    alpha = acceptance(both)
    following = torch.cat([alpha, alpha.new_ones(_DRAFTED)])
    reached = torch.stack(
        [following[offset : offset + len(alpha)] for offset in range(_DRAFTED)], dim=-1
    ).cumprod(dim=-1)  # [N, K]
    return -reached.mean(dim=-1)
