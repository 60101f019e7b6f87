"""What an engine hands to the recorder when a request has finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aurora_inference.contract import Request, SpeculationReport
from aurora_inference.trajectory.admission import Admission


@dataclass(frozen=True, slots=True)
class VerifyStep:
    """One pass of the target over a row: tokens drafted and accepted, and how long it took.

    A step drafts with the request's draft or by n-grams, which is counted apart. `by_other`: with
    another draft than the request began with, whose digest is `draft_digest` if it is known.
    """

    drafted: int
    accepted: int
    batch_size: int
    microseconds: int
    ngram_drafted: int = 0
    ngram_accepted: int = 0
    by_other: bool = False
    draft_digest: str = ""

    def by_ngram(self) -> VerifyStep:
        """The same step, drafted by n-grams."""
        return VerifyStep(0, 0, self.batch_size, self.microseconds, self.drafted, self.accepted)


class Distributions(NamedTuple):
    """The target's own distribution, at temperature 1, that decided each of T output tokens."""

    top_ids: NDArray[np.uint32]  # [T, k], most probable first
    top_log_probs: NDArray[np.float16]  # [T, k]
    tail_mass: NDArray[np.float16]  # [T]: the probability of all other tokens


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished request, with what was drafted and the target's distributions if captured.

    `admission`: None until it is recorded.
    """

    request: Request
    output_tokens: tuple[int, ...]
    report: SpeculationReport
    steps: tuple[VerifyStep, ...]
    distributions: Distributions | None
    admission: Admission | None = None
