"""Does the engine accept what a draft's own weights say that it should?

A verify step tests drafted tokens one after the other, up to the first that it rejects. Given the
text before it, a tested one is accepted with the probability that `acceptance` computes by teacher
forcing. So the sum of the differences has mean 0, whatever the text, if engine and judge compute
the same; an engine that reads other hidden states, turns positions by another angle or maps the
vocabulary otherwise accepts less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aurora.buffer.v1 import buffer_pb2

# After so many tested tokens there is nothing more to learn: a gap of three points is ten standard
# errors if all are accepted as often as not.
ENOUGH_TOKENS = 1 << 15


@dataclass(frozen=True, slots=True)
class Agreement:
    """Tokens of one draft that were tested in service.

    `predicted`: how many of the `tested` the target should accept, and `variance` that of their
    number.
    """

    digest: str
    requests: int = 0
    tested: int = 0
    accepted: int = 0
    predicted: float = 0.0
    variance: float = 0.0

    @property
    def is_enough(self) -> bool:
        return self.tested >= ENOUGH_TOKENS

    def add(
        self, acceptance: NDArray[np.float64], steps: Sequence[buffer_pb2.VerifyStep]
    ) -> Agreement:
        """With a request that this draft served.

        acceptance: as `acceptance.acceptance` gives it, of all T output tokens, for as many drafted
        ones as the longest step. The same if the steps do not add up to the tokens, as when those
        without a draft were not recorded.
        """
        count = len(acceptance)
        emitted = [step.accepted + step.ngram_accepted + 1 for step in steps]
        # The first token comes with the prompt; the last step may go beyond the end.
        if not (1 + sum(emitted[:-1]) < count <= 1 + sum(emitted)):
            return self
        by_place = acceptance if acceptance.ndim == 2 else acceptance[:, None]
        places = by_place.shape[1] - 1
        tested: list[float] = []
        accepted, start = 0, 1
        for step, tokens in zip(steps, emitted, strict=True):
            drafted = 0 if step.by_other else step.drafted
            known = min(drafted, step.accepted + 1, count - start)
            tested += (by_place[start + ahead, min(ahead, places)] for ahead in range(known))
            accepted += min(step.accepted, known)
            start += tokens
        if not tested:
            return self
        probs = np.array(tested)
        return replace(
            self,
            requests=self.requests + 1,
            tested=self.tested + len(probs),
            accepted=self.accepted + accepted,
            predicted=self.predicted + float(probs.sum()),
            variance=self.variance + float((probs * (1 - probs)).sum()),
        )
