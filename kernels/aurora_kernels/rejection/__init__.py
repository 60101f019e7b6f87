"""The accept/reject rules of speculative decoding."""

from aurora_kernels.rejection.reference import (
    Verdict,
    draw,
    gumbel_argmax,
    residual_probs,
    verify,
    verify_coupled,
)

__all__ = ["Verdict", "draw", "gumbel_argmax", "residual_probs", "verify", "verify_coupled"]
