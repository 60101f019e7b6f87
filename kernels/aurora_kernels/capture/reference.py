"""The most probable tokens at each position, in plain torch: on the CPU the fastest form too."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Captured(NamedTuple):
    """The target's distribution at N positions, as training reads it."""

    ids: Tensor  # [N, k] int64, most probable first
    log_probs: Tensor  # [N, k] float32


def capture(logits: Tensor, count: int) -> Captured:
    """The `count` most probable tokens, or all of the vocabulary, for logits [N, V] float32.

    The tail mass, the probability of all other tokens, is 1 - Σ exp(log_probs): who needs it takes
    it once for all positions of a request.
    """
    # logsumexp of the logits would take ten times as long for a few rows.
    top = logits.log_softmax(dim=-1).topk(min(count, logits.shape[-1]), dim=-1)
    return Captured(top.indices, top.values)
