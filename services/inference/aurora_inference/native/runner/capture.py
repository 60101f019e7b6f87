"""The target's distributions for training, taken from the logits of verification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aurora_inference.trajectory.completion import Distributions
from aurora_kernels.capture import capture

TOP_TOKENS = 64


class CapturedRows(NamedTuple):
    """The most probable tokens at m positions.

    numpy, because a step is sliced by sequence and slicing an array costs a tenth of slicing a
    tensor.
    """

    ids: NDArray[np.int64]  # [m, k], most probable first
    log_probs: NDArray[np.float32]  # [m, k], at temperature 1

    def part(self, start: int, end: int) -> CapturedRows:
        return CapturedRows(self.ids[start:end], self.log_probs[start:end])


def top_tokens(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The top 64 of the target's own distribution (temperature 1), for logits [m, V] float32.

    Ids and log-probabilities, as of `CapturedRows`.
    """
    return capture(logits, TOP_TOKENS)


def as_distributions(parts: Sequence[CapturedRows], count: int) -> Distributions:
    """Joins the parts captured for a request, cut to its `count` tokens.

    The tail mass, the probability of all other tokens, follows from the rest.
    """
    ids = np.concatenate([part.ids for part in parts])[:count]
    log_probs = np.concatenate([part.log_probs for part in parts])[:count]
    tail_mass = np.maximum(1.0 - np.exp(log_probs).sum(axis=1), 0.0)
    return Distributions(
        ids.astype(np.uint32), log_probs.astype(np.float16), tail_mass.astype(np.float16)
    )
