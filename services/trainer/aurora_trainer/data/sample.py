"""A trajectory in the form that training uses: validated, normalised, cut to length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Rough size of a sample without its arrays.
_OBJECT_BYTES = 512


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One request's tokens and the target's distribution at its last T of them.

    tokens: int32 [P + T], prompt first, P ≥ 1. Row i of the distributions decided tokens[P + i]:
    top_ids int32 [T, k], log_probs float16 [T, k], tail_mass float16 [T]. `is_greedy`: whether the
    target's most probable token was served everywhere.
    """

    stream_id: str
    request_id: str
    domain: str
    tokens: NDArray[np.int32]
    top_ids: NDArray[np.int32]
    log_probs: NDArray[np.float16]
    tail_mass: NDArray[np.float16]
    is_greedy: bool = False

    @property
    def output_count(self) -> int:
        """T, the number of positions with a target distribution."""
        return len(self.tail_mass)

    def has_prompt_of(self, other: Sample) -> bool:
        """Whether both answer the same prompt, as far as it was kept."""
        prompt, another = (each.tokens[: -each.output_count] for each in (self, other))
        return bool(np.array_equal(prompt, another))

    @property
    def is_bare(self) -> bool:
        """Whether it has token ids alone."""
        return bool(self.top_ids.shape[1] == 0)

    @property
    def size_bytes(self) -> int:
        """Approximate size in memory."""
        arrays = (self.tokens, self.top_ids, self.log_probs, self.tail_mass)
        return _OBJECT_BYTES + sum(array.nbytes for array in arrays)
