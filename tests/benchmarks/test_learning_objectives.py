"""The ablation's objectives against their formulas, and what their gradients do."""

from __future__ import annotations

import pytest
import torch
from benchmarks.learning_objectives import (
    accepted_length,
    greedy_cross_entropy,
    negative_log_acceptance,
    reverse_kl,
)

from aurora_trainer.learning.objective import Buckets, acceptance, buckets

ALL = (
    negative_log_acceptance,
    reverse_kl,
    greedy_cross_entropy,
    accepted_length,
)
ROWS, VOCABULARY, K = 6, 9, 4


def both_from(draft: torch.Tensor, *, seed: int = 0, scale: float = 1.0) -> Buckets:
    """Of draft logits [N, V] and a random target."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(len(draft), VOCABULARY, generator=generator, dtype=draft.dtype) * scale
    log_probs, ids = target.log_softmax(-1).topk(K, dim=-1)
    return buckets(draft, ids, log_probs, (1 - log_probs.exp().sum(-1)).clamp_min(0))


def logits(*, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, VOCABULARY, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("loss", ALL)
def test_the_gradient_is_that_of_the_value(loss):
    assert torch.autograd.gradcheck(
        lambda draft: loss(both_from(draft)), (logits().requires_grad_(),)
    )


@pytest.mark.parametrize("loss", ALL)
def test_a_step_against_the_gradient_raises_acceptance(loss):
    draft = logits().requires_grad_()
    before = acceptance(both_from(draft)).mean()
    loss(both_from(draft)).sum().backward()
    after = acceptance(both_from(draft.detach() - 0.05 * draft.grad)).mean()
    assert after > before


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("scale", [0.0, 50.0, 1e4])
def test_extreme_logits_stay_finite(loss, scale):
    draft = (logits().float() * scale).requires_grad_()
    value = loss(both_from(draft, scale=100.0))
    value.sum().backward()
    assert value.isfinite().all()
    assert draft.grad.isfinite().all()


def test_values_by_hand():
    # Target .5 .3 | .2, draft .2 .6 | .2.
    target, draft = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.6, 0.2]])
    both = Buckets(target, target.log(), draft.log(), has_tail=True)
    alpha = 0.2 + 0.3 + 0.2
    divergence = 0.2 * torch.tensor(0.2 / 0.5).log() + 0.6 * torch.tensor(0.6 / 0.3).log()
    for loss, expected in (
        (negative_log_acceptance, -torch.tensor(alpha).log()),
        (reverse_kl, divergence),
        (greedy_cross_entropy, -torch.tensor(0.2).log()),
    ):
        torch.testing.assert_close(loss(both), expected.reshape(1))


def test_accepted_length_counts_what_comes_after_an_accepted_token():
    alphas = torch.tensor([0.5, 1.0, 0.25])
    probs = torch.stack([alphas, 1 - alphas], dim=-1)
    target = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    both = Buckets(target, target.log(), probs.log(), has_tail=False)
    # Beyond the last row all is accepted.
    expected = [0.5 * (1 + 1 + 0.25 + 0.25), 1 + 0.25 + 0.25 + 0.25, 0.25 * 4]
    torch.testing.assert_close(accepted_length(both), -torch.tensor(expected) / 4)
