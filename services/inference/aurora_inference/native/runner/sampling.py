"""The sampling parameters of batches, kept between steps."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial

from aurora_inference.native.sequence import Sequence
from aurora_kernels.sampling import SamplingRows

_RECENT_BATCHES = 128


class BatchSampling:
    """Builds the `SamplingRows` of batches and keeps those of recent ones.

    The same rows often come back: a batch changes less often than it steps.
    """

    def __init__(self, device: str) -> None:
        self._recent = lru_cache(maxsize=_RECENT_BATCHES)(partial(SamplingRows, device=device))

    def rows(self, sequences: Iterable[Sequence]) -> SamplingRows:
        return self._recent(tuple(sequence.request.sampling for sequence in sequences))
