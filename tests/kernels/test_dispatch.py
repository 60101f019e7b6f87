"""Tensors on a GPU go to Triton's kernels, which refuse those of another device."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from aurora_inference.contract import Sampling
from aurora_kernels.capture import capture
from aurora_kernels.distill_loss import bucket_log_probs
from aurora_kernels.sampling import SamplingRows
from aurora_kernels.verify import Draws, verify_logits

pytest.importorskip("triton")


class Operations(TorchDispatchMode):
    """Keeps the names of what runs within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def ran():
    """Computes shapes and devices alone, as if there were a GPU; the operations that ran."""
    with FakeTensorMode(), Operations() as operations:
        yield operations.names


def verified(*, drafted_on: str = "cuda"):
    rows = SamplingRows([Sampling(0.7, top_k=3, seed=1), Sampling(top_p=0.9)], "cuda")
    accept, following = torch.rand(2, 4, device="cuda"), torch.rand(2, 5, device="cuda")
    return verify_logits(
        torch.randn(2, 5, 300, device="cuda"),
        torch.zeros(2, 4, dtype=torch.int64, device=drafted_on),
        torch.rand(2, 4, 300, device="cuda"),
        torch.zeros(2, dtype=torch.int64, device="cuda"),
        rows,
        Draws(accept, following, torch.rand(1, 5, 300, device="cuda")),
    )


def bucketed(*, ids_on: str = "cuda"):
    hidden, head = torch.randn(6, 8, device="cuda"), torch.randn(9000, 8, device="cuda")
    ids = torch.zeros(6, 4, dtype=torch.int64, device=ids_on)
    return bucket_log_probs(hidden.requires_grad_(), head.requires_grad_(), ids)


def test_verification(ran):
    verdict = verified()
    assert "aurora.verify.default" in ran
    assert [(each.device.type, each.shape, each.dtype) for each in verdict] == [
        ("cuda", (2,), torch.int64)
    ] * 2


def test_capture(ran):
    found = capture(torch.randn(3, 300, device="cuda"), 64)
    assert "aurora.capture.default" in ran
    assert [(each.device.type, each.shape) for each in found] == [("cuda", (3, 64))] * 2


def test_the_distillation_loss_forward_and_backward(ran):
    found = bucketed()
    assert "aurora.distill_reduce.default" in ran
    assert (found.device.type, found.shape) == ("cuda", (6, 5))
    # Autograd's engine would ask for a real device.
    by_hidden, by_head, *_ = found.grad_fn.apply(torch.ones_like(found))
    assert "aurora.distill_differentiate.default" in ran
    assert [(each.device.type, each.shape) for each in (by_hidden, by_head)] == [
        ("cuda", (6, 8)),
        ("cuda", (9000, 8)),
    ]


@pytest.mark.parametrize(
    "misplaced", [lambda: verified(drafted_on="cpu"), lambda: bucketed(ids_on="cpu")]
)
def test_a_tensor_of_another_device_is_an_error(ran, misplaced):
    with pytest.raises(AssertionError, match="allowed is one device"):
        misplaced()
