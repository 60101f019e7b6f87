"""The accept/reject rule of speculative decoding."""

from aurora_kernels.rejection.reference import (
    Verdict,
    draw,
    residual_probs,
    verify,
    verify_greedy,
)

__all__ = ["Verdict", "draw", "residual_probs", "verify", "verify_greedy"]
