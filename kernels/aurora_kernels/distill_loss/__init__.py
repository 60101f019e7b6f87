"""The costly half of a distillation loss: from hidden states to the draft's log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from aurora_kernels.distill_loss import cpu
from aurora_kernels.distill_loss.cpu import log_probs_of_logits

__all__ = ["bucket_log_probs", "log_probs_of_logits", "rows_at_once"]

_ROWS_ON_GPU = 4096


def rows_at_once(vocabulary: int, device: torch.device) -> int:
    """How many positions to pass at a time.

    Each time all of the head is read, and the gradient of all of it added up.
    """
    return _ROWS_ON_GPU if device.type == "cuda" else cpu.rows_at_once(vocabulary)


def bucket_log_probs(hidden: Tensor, head: Tensor, top_ids: Tensor) -> Tensor:
    """`reference.bucket_log_probs` in the form that is fastest on the tensors' device."""
    if hidden.device.type == "cuda":
        # Not on every platform that torch is.
        from aurora_kernels.distill_loss import triton

        return triton.bucket_log_probs(hidden, head, top_ids)
    return cpu.bucket_log_probs(hidden, head, top_ids)
