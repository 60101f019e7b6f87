"""From the target's logits to what is accepted of a draft, in plain torch.

On the CPU this is also the fastest form: a batch that is all greedy takes one argmax.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from aurora_kernels.rejection import Verdict, verify, verify_coupled
from aurora_kernels.sampling import SamplingRows


class Draws(NamedTuple):
    """The random numbers of a step; `accept` and `following` are None if all rows are determined.

    `noise` is None if no row has a seed.
    """

    accept: Tensor | None  # [B, K] float32 in [0, 1), by position
    following: Tensor | None  # [B, K + 1] float32 in [0, 1), by position
    noise: Tensor | None  # [S, K + 1, V] float32, standard exponential, > 0


def verify_logits(
    logits: Tensor,
    drafted: Tensor,
    draft_probs: Tensor | None,
    lengths: Tensor,
    rows: SamplingRows,
    draws: Draws,
) -> Verdict:
    """How much of each row's draft the target accepts, and the token that follows it.

    logits [B, K+1, V] float32, the target's at each position; drafted [B, K] int64, drawn from
    draft_probs [B, K, V] float32 (None if all rows are determined, of any value where one is);
    lengths [B] int64 <= K: how many of a row's drafts count. Rows that are determined accept what
    the target itself says, by `verify_coupled`; all others by `verify`, both sides after the row's
    temperature and truncation.
    """
    if draws.accept is None or draws.following is None or draft_probs is None:
        return verify_coupled(rows.tokens(logits, draws.noise), drafted, lengths)
    target_probs = rows.drawn_from(logits, draws.noise)
    return verify(target_probs, draft_probs, drafted, lengths, draws.accept, draws.following)
