"""Every form gives the reference's log-probabilities over buckets, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aurora_kernels.distill_loss import (
    bucket_log_probs,
    cpu,
    log_probs_of_logits,
    reference,
    rows_at_once,
)
from aurora_kernels.distill_loss.blocked import bucket_log_probs as blocked_log_probs


def triton_log_probs(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    from aurora_kernels.distill_loss import triton

    return triton.bucket_log_probs(hidden, head, ids, columns=13, tile=8)


def blocked_on_cpu(hidden: Tensor, head: Tensor, ids: Tensor) -> Tensor:
    return blocked_log_probs(hidden, head, ids, steps=cpu.CpuSteps(), columns=13)


def inputs(
    rows: int, vocabulary: int, top: int, *, width: int = 6, dtype=torch.float32, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, head, top_ids, and a gradient of the result."""
    generator = torch.Generator().manual_seed(rows + vocabulary + top)
    hidden = 2 * torch.randn(rows, width, generator=generator)
    head = torch.randn(vocabulary, width, generator=generator)
    ids = torch.rand(rows, vocabulary, generator=generator).topk(top, dim=-1).indices
    gradient = torch.randn(rows, top + 1, generator=generator)
    if top == vocabulary:
        gradient[:, -1] = 0.0
    return (
        hidden.to(device, dtype).requires_grad_(),
        head.to(device, dtype).requires_grad_(),
        ids.to(device),
        gradient.to(device),
    )


def with_gradients(form, given) -> tuple[Tensor, Tensor, Tensor]:
    hidden, head, ids, gradient = given
    found = form(hidden, head, ids)
    grads = torch.autograd.grad(found, (hidden, head), gradient.to(found.dtype))
    return found.detach(), *grads


SHAPES = [(1, 2, 1), (5, 13, 3), (3, 27, 8), (4, 61, 20), (3, 17, 17)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_triton_form_equals_the_reference(shape, device, poisoned):
    given = inputs(*shape, device=device)
    expected = with_gradients(reference.bucket_log_probs, given)
    with poisoned():
        found = with_gradients(triton_log_probs, given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("form", [blocked_on_cpu, cpu.bucket_log_probs, bucket_log_probs])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_cpu_forms_equal_the_reference(form, shape, poisoned):
    given = inputs(*shape, device="cpu")
    expected = with_gradients(reference.bucket_log_probs, given)
    with poisoned():
        found = with_gradients(form, given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


def test_many_logits_on_the_cpu_are_computed_in_blocks(monkeypatch):
    given = inputs(5, 40, 4, device="cpu")
    whole = with_gradients(cpu.bucket_log_probs, given)
    monkeypatch.setattr(cpu, "_LOGITS", 37)
    monkeypatch.setattr(cpu, "log_probs_of_logits", None)
    for ours, theirs in zip(with_gradients(cpu.bucket_log_probs, given), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


def test_bfloat16_products_have_float32_sums(device):
    given = inputs(4, 61, 8, width=16, dtype=torch.bfloat16, device=device)
    found = with_gradients(triton_log_probs, given)
    assert [each.dtype for each in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    hidden, head, ids, gradient = given
    exact = with_gradients(
        reference.bucket_log_probs,
        (
            hidden.float().detach().requires_grad_(),
            head.float().detach().requires_grad_(),
            ids,
            gradient,
        ),
    )
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.03, atol=0.06)


@pytest.mark.parametrize("form", [triton_log_probs, blocked_on_cpu])
def test_a_tail_that_underflows_still_gets_its_gradient(form, device):
    hidden = torch.tensor([[1.0]], device=device, requires_grad=True)
    head = torch.tensor([[300.0], [0.0], [0.0], [0.0]], device=device, requires_grad=True)
    found = form(hidden, head, torch.tensor([[0]], device=device))
    torch.testing.assert_close(found[0, 1].item(), torch.tensor(3.0).log().item() - 300)
    found[0, 1].backward()
    torch.testing.assert_close(
        head.grad[:, 0].cpu(), torch.tensor([-1.0, 1 / 3, 1 / 3, 1 / 3]), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("form", [triton_log_probs, blocked_on_cpu])
def test_logits_as_large_as_float32_allows_stay_finite(form, device):
    given = inputs(6, 50, 5, device=device)
    hidden = (given[0] * 1e30).detach().requires_grad_()
    for each in with_gradients(form, (hidden, *given[1:])):
        assert each.isfinite().all()


@pytest.mark.parametrize(("vocabulary", "rows"), [(2048, 512), (16384, 64), (151_936, 1024)])
def test_logits_of_a_large_vocabulary_are_not_kept_on_the_cpu(vocabulary, rows):
    assert rows_at_once(vocabulary, torch.device("cpu")) == rows


def test_a_head_without_gradient_gets_none(device):
    hidden, head, ids, gradient = inputs(3, 27, 8, device=device)
    triton_log_probs(hidden, head.detach(), ids).backward(gradient)
    expected = with_gradients(reference.bucket_log_probs, (hidden, head, ids, gradient))
    torch.testing.assert_close(hidden.grad, expected[1], rtol=2e-5, atol=2e-5)


def test_logits_in_memory_give_the_same():
    hidden, head, ids, _ = inputs(3, 27, 8, device="cpu")
    expected = reference.bucket_log_probs(hidden, head, ids)
    torch.testing.assert_close(log_probs_of_logits(hidden @ head.T, ids), expected)
