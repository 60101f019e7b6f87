"""The objective against the naive formula in float64, and at the edges of float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aurora_trainer.learning.objective import (
    acceptance_interval,
    buckets,
    forward_kl,
    lk_loss,
    overlap,
)

LOSSES = [forward_kl, overlap, lk_loss]


def target_over_buckets(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids, log-probabilities and tail mass as a trajectory carries them."""
    log_probs, ids = logits.log_softmax(-1).topk(k, dim=-1)
    outside = logits.scatter(-1, ids, -torch.inf)
    tail = (outside.logsumexp(-1) - logits.logsumexp(-1)).exp()
    return ids, log_probs, tail


def naive(name: str, draft: Tensor, ids: Tensor, log_probs: Tensor, tail: Tensor) -> Tensor:
    """The formulas as the design writes them."""
    probs = draft.softmax(-1)
    top = probs.gather(-1, ids)
    q = torch.cat([top, 1 - top.sum(-1, keepdim=True)], -1)
    p = torch.cat([log_probs.exp(), tail.unsqueeze(-1)], -1)
    if ids.shape[-1] == draft.shape[-1]:
        p, q = p[:, :-1], q[:, :-1]
    kl = (p * (p.log() - q.log())).sum(-1)
    alpha = torch.minimum(p, q).sum(-1)
    weight = torch.exp(-3 * alpha.detach())
    variation = (p - q).abs().sum(-1) / 2
    return {
        "forward_kl": kl,
        "overlap": alpha,
        "lk_loss": weight * kl + (1 - weight) * variation,
    }[name]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("vocabulary", "k"), [(7, 1), (33, 8), (33, 32), (17, 17)])
def test_value_and_gradient_equal_the_naive_formula(loss, vocabulary, k):
    generator = torch.Generator().manual_seed(vocabulary + k)
    draft = torch.randn(5, vocabulary, generator=generator, dtype=torch.float64)
    target = target_over_buckets(
        torch.randn(5, vocabulary, generator=generator, dtype=torch.float64), k
    )
    ours = draft.clone().requires_grad_()
    theirs = draft.clone().requires_grad_()
    value = loss(ours, *target)
    expected = naive(loss.__name__, theirs, *target)
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_forward_kl_passes_gradcheck(k):
    generator = torch.Generator().manual_seed(k)
    draft = torch.randn(3, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    target = target_over_buckets(torch.randn(3, 9, generator=generator, dtype=torch.float64), k)
    assert torch.autograd.gradcheck(lambda logits: forward_kl(logits, *target), (draft,))


def test_all_of_the_vocabulary_gives_the_full_divergence():
    generator = torch.Generator().manual_seed(0)
    draft, target = torch.randn(2, 4, 50, generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.kl_div(
        draft.log_softmax(-1), target.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(forward_kl(draft, *target_over_buckets(target, 50)), expected)


@pytest.mark.parametrize("k", [1, 8, 40])
def test_equal_distributions_have_no_loss_and_full_overlap(k):
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(k))
    target = target_over_buckets(logits, k)
    nothing = torch.zeros(6)
    torch.testing.assert_close(forward_kl(logits, *target), nothing, atol=2e-6, rtol=0)
    torch.testing.assert_close(lk_loss(logits, *target), nothing, atol=2e-6, rtol=0)
    torch.testing.assert_close(overlap(logits, *target), nothing + 1, atol=2e-6, rtol=0)


@pytest.mark.parametrize("k", [1, 8, 40])
def test_what_is_accepted_lies_in_the_interval(k):
    generator = torch.Generator().manual_seed(k)
    draft, target = torch.randn(2, 6, 40, generator=generator, dtype=torch.float64)
    least, most = acceptance_interval(buckets(draft, *target_over_buckets(target, k)))
    exact = torch.minimum(draft.softmax(-1), target.softmax(-1)).sum(-1)
    assert ((least <= exact + 1e-12) & (exact <= most + 1e-12)).all()
    assert (least == most).all() if k == 40 else (least < most).all()


def test_of_a_flat_target_next_to_nothing_is_certain():
    """Both have nearly all mass in the tail, but on different tokens."""
    draft, target = torch.full((2, 1, 40), -9.0)
    draft[0, 20:], target[0, :20] = 0.0, 0.0
    least, most = acceptance_interval(buckets(draft, *target_over_buckets(target, 2)))
    assert least < 1e-3
    assert most > 0.85


def test_lk_moves_from_likelihood_to_acceptance():
    target = target_over_buckets(torch.tensor([[4.0, 0.0, 0.0, 0.0]]), 2)
    far, near = torch.tensor([[-9.0, 9.0, 0.0, 0.0]]), torch.tensor([[3.9, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(lk_loss(far, *target), forward_kl(far, *target), rtol=0.1, atol=0)
    weight = torch.exp(-3 * overlap(near, *target))
    expected = weight * forward_kl(near, *target) + (1 - weight) * (1 - overlap(near, *target))
    torch.testing.assert_close(lk_loss(near, *target), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 50.0, 1e4, 1e30])
def test_extreme_logits_stay_finite(loss, scale):
    generator = torch.Generator().manual_seed(1)
    draft = (torch.randn(8, 64, generator=generator) * scale).requires_grad_()
    target = target_over_buckets(torch.randn(8, 64, generator=generator) * 200, 8)
    value = loss(draft, *target)
    value.sum().backward()
    assert value.isfinite().all()
    assert draft.grad.isfinite().all()


def test_a_tail_that_underflows_still_gets_its_gradient():
    draft = torch.tensor([[300.0, 0.0, 0.0, 0.0]], requires_grad=True)
    mass = torch.tensor([0.5])
    loss = forward_kl(draft, torch.tensor([[0]]), mass.log().unsqueeze(0), mass)
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([149.0]), rtol=0.01, atol=0)
    torch.testing.assert_close(draft.grad, torch.tensor([[0.5, -1 / 6, -1 / 6, -1 / 6]]))


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    vocabulary=st.integers(2, 70),
    fraction=st.floats(0, 1),
    scale=st.floats(0, 100),
)
def test_bounds_hold_for_any_distributions(seed, vocabulary, fraction, scale):
    generator = torch.Generator().manual_seed(seed)
    k = 1 + int(fraction * (vocabulary - 1))
    draft = torch.randn(3, vocabulary, generator=generator, dtype=torch.float64) * scale
    logits = torch.randn(3, vocabulary, generator=generator, dtype=torch.float64) * scale
    target = target_over_buckets(logits, k)
    full = target_over_buckets(logits, vocabulary)
    divergence, alpha = forward_kl(draft, *target), overlap(draft, *target)
    assert (divergence >= -1e-9).all()
    assert (divergence <= forward_kl(draft, *full) + 1e-9).all()
    assert ((alpha >= overlap(draft, *full) - 1e-9) & (alpha <= 1 + 1e-9)).all()
    assert (lk_loss(draft, *target) <= torch.maximum(divergence, 1 - alpha) + 1e-9).all()
