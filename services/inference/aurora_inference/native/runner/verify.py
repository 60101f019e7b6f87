"""The accept/reject rule applied to one step of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from aurora_inference.native.runner import Verified
from aurora_inference.native.runner.drafter import Proposal
from aurora_inference.native.runner.sampling import SamplingRows
from aurora_kernels.rejection import verify, verify_greedy


def verified(
    logits: Tensor,
    proposal: Proposal,
    lengths: list[int],
    sampling: SamplingRows,
    uniforms: Tensor | None,
) -> Verified:
    """Decides how much of each row's proposal the target accepts and which token follows.

    logits [n, K+1, V] float32; row i drafted `lengths[i]` <= K tokens; uniforms [n, K+1] in [0, 1),
    K for acceptance and one for the next token, None if every row is greedy.
    """
    counted = torch.tensor(lengths, device=logits.device)
    if uniforms is None or proposal.probs is None:
        verdict = verify_greedy(logits.argmax(dim=-1), proposal.tokens, counted)
    else:
        probs = sampling.probs(logits)
        verdict = verify(probs, proposal.probs, proposal.tokens, counted, uniforms)
    accepted, next_tokens = verdict.accepted.tolist(), verdict.next_token.tolist()
    drafted = proposal.tokens.tolist()
    emitted = [
        [*row[:count], token]
        for row, count, token in zip(drafted, accepted, next_tokens, strict=True)
    ]
    return Verified(accepted, emitted)
