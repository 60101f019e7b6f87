"""The target's distributions for training, taken from logits that verification computed anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TOP_TOKENS = 64


class CapturedRows(NamedTuple):
    """The most probable tokens at some positions, and the probability of all the others."""

    ids: Tensor  # [m, k] int64
    log_probs: Tensor  # [m, k] float32, at temperature 1
    tail_mass: Tensor  # [m] float32

    def part(self, start: int, end: int) -> CapturedRows:
        return CapturedRows(*(column[start:end] for column in self))


def captured_rows(logits: Tensor) -> CapturedRows:
    """The top 64 of the target's own distribution (temperature 1), for logits [m, V] float32."""
    top = logits.topk(min(TOP_TOKENS, logits.shape[-1]), dim=-1)
    log_probs = top.values - logits.logsumexp(dim=-1, keepdim=True)
    tail_mass = (1.0 - log_probs.exp().sum(dim=-1)).clamp_min(0.0)
    return CapturedRows(top.indices, log_probs, tail_mass)


def as_arrays(
    parts: Sequence[CapturedRows], count: int
) -> tuple[NDArray[np.uint32], NDArray[np.float16], NDArray[np.float16]]:
    """Joins a request's parts into the arrays of a `Completion`, cut to its `count` tokens."""
    ids = torch.cat([part.ids for part in parts])[:count].to(torch.int32)
    log_probs = torch.cat([part.log_probs for part in parts])[:count].half()
    tail_mass = torch.cat([part.tail_mass for part in parts])[:count].half()
    return ids.cpu().numpy().view(np.uint32), log_probs.cpu().numpy(), tail_mass.cpu().numpy()
