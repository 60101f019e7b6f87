"""The accept/reject rules applied to one step of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from aurora_inference.native.runner import Verified
from aurora_inference.native.runner.device import Device
from aurora_inference.native.runner.drafter import Proposal
from aurora_inference.native.runner.sampler import Sampler
from aurora_kernels.verify import verify_logits


def verified(
    logits: Tensor, proposal: Proposal, lengths: list[int], sampler: Sampler, device: Device
) -> Verified:
    """Decides how much of each row's proposal the target accepts and which token follows.

    logits [n, K+1, V] float32; row i drafted `lengths[i]` <= K tokens.
    """
    counted, drafted = torch.tensor(lengths, device=logits.device), proposal.tokens
    verdict = verify_logits(logits, drafted, proposal.probs, counted, sampler.rows, sampler.draws)
    decided = device.on_host((verdict.accepted, verdict.next_token, drafted))
    accepted, next_tokens, tokens = (each.tolist() for each in decided)
    emitted = [
        [*row[:count], token]
        for row, count, token in zip(tokens, accepted, next_tokens, strict=True)
    ]
    return Verified(lengths, accepted, emitted)
