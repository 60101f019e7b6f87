"""What is recorded of the target's distributions."""

from __future__ import annotations

from torch import Tensor

from aurora_kernels.capture import reference
from aurora_kernels.capture.reference import Captured

__all__ = ["Captured", "capture"]


def capture(logits: Tensor, count: int) -> Captured:
    """`reference.capture` in the form that is fastest on the tensors' device."""
    if logits.device.type == "cuda":
        # Not on every platform that torch is.
        from aurora_kernels.capture import triton

        return triton.capture(logits, count)
    return reference.capture(logits, count)
