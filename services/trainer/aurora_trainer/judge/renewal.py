"""From acceptance at each position to the number of verify steps that a text takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def expected_steps(acceptance: NDArray[np.float64], drafted: int) -> float:
    """Expected verify steps to emit T tokens, each step drafting `drafted` (≥ 1) of them.

    acceptance: in [0, 1], [T] of the drafted token at each position, or [T, drafted] if it depends
    on how many tokens of the same step come before it. A step that begins at t and
    has j tokens accepted emits j + 1, so V[t] = 1 + Σ_j P(j)·V[t + j + 1] with V[t] = 0 from T on.
    The result is between ⌈T / (drafted + 1)⌉ and T; it takes T·drafted operations.
    """
    assert drafted >= 1
    by_step = acceptance if acceptance.ndim == 2 else acceptance[:, None]
    assert by_step.shape[1] in (1, drafted)
    accepted = np.broadcast_to(by_step, (len(by_step), drafted)).tolist()
    count = len(accepted)
    steps = [0.0] * (count + 1)
    for start in range(count - 1, -1, -1):
        end = min(start + drafted, count)
        following, reached = 0.0, 1.0
        for position in range(start, end):
            alpha = accepted[position][position - start]
            following += reached * (1.0 - alpha) * steps[position + 1]
            reached *= alpha
        if end < count:
            # All were accepted, and the target's own token comes after them.
            following += reached * steps[end + 1]
        steps[start] = 1.0 + following
    return steps[0]
