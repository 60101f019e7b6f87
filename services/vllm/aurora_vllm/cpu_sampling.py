"""Mends vLLM's sampling under speculation on CPUs, where it needs it."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def mend() -> bool:
    """Replaces vLLM's expansion of sampling parameters if it is wrong; returns whether it was.

    In vLLM 0.32 it casts temperatures to integers and loses the result, so one sampled request
    changes the tokens of every greedy request in its batch.
    """
    from vllm.v1.sample import rejection_sampler

    values, ends = torch.tensor([0.5, 0.0]), torch.tensor([2, 3], dtype=torch.int32)
    expected = torch.tensor([0.5, 0.5, 1.0])
    found = rejection_sampler.expand_batch_to_tokens(values, ends, 3, replace_from=0, replace_to=1)
    if torch.equal(found, expected):
        return False
    rejection_sampler.expand_batch_to_tokens = expand_batch_to_tokens
    logger.warning("vLLM's sampling under speculation is wrong on this CPU; mended")
    return True


def expand_batch_to_tokens(
    x: Tensor,
    cu_num_tokens: Tensor,
    num_tokens: int,
    replace_from: int = 0,
    replace_to: int = 0,
) -> Tensor:
    """Repeats x[i] for each of request i's tokens: [B] -> [num_tokens], of the same dtype.

    cu_num_tokens: integers [B], where each request's tokens end. Values equal to `replace_from`
    become `replace_to`. The names are vLLM's.
    """
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    kept = x.masked_fill(x == replace_from, replace_to)
    return kept.repeat_interleave(counts, output_size=num_tokens)
