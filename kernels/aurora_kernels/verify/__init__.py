"""Verification of one step: from the target's logits to accepted lengths and next tokens."""

from __future__ import annotations

from torch import Tensor

from aurora_kernels.rejection import Verdict
from aurora_kernels.sampling import SamplingRows
from aurora_kernels.verify import reference
from aurora_kernels.verify.reference import Draws

__all__ = ["Draws", "verify_logits"]


def verify_logits(
    logits: Tensor,
    drafted: Tensor,
    draft_probs: Tensor | None,
    lengths: Tensor,
    rows: SamplingRows,
    draws: Draws,
) -> Verdict:
    """`reference.verify_logits` in the form that is fastest on the tensors' device."""
    if logits.device.type == "cuda":
        # Not on every platform that torch is.
        from aurora_kernels.verify import triton

        return triton.verify_logits(logits, drafted, draft_probs, lengths, rows, draws)
    return reference.verify_logits(logits, drafted, draft_probs, lengths, rows, draws)
