"""The accept/reject rule: accepted tokens are distributed as the target's, whatever the draft."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aurora_kernels.rejection import Verdict, draw, residual_probs, verify, verify_greedy

SAMPLES = 40_000
VOCABULARY = 7


def _distributions(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, VOCABULARY, generator=generator)).softmax(-1)


def _first_two_tokens(
    target: torch.Tensor, draft: torch.Tensor, *, rule=verify, seed: int
) -> torch.Tensor:
    """[n, 2]: the first two tokens emitted at K = 2 by a target that ignores its context."""
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(SAMPLES, 5, generator=generator)
    draft_probs = draft.expand(SAMPLES, -1, -1)
    drafted = torch.stack([draw(draft_probs[:, i], uniforms[:, i]) for i in range(2)], dim=1)
    verdict = rule(
        target.expand(SAMPLES, -1, -1),
        draft_probs,
        drafted,
        torch.full((SAMPLES,), 2),
        uniforms[:, 2:],
    )
    second = draw(target[1].expand(SAMPLES, -1), torch.rand(SAMPLES, generator=generator))
    # A rejection at once leaves the second token to the next step, which is plain decoding.
    first = torch.where(verdict.accepted > 0, drafted[:, 0], verdict.next_token)
    following = torch.where(verdict.accepted > 1, drafted[:, 1], verdict.next_token)
    return torch.stack([first, torch.where(verdict.accepted > 0, following, second)], dim=1)


def _p_value(tokens: torch.Tensor, target: torch.Tensor) -> float:
    joint = torch.outer(target[0], target[1]).flatten().double()
    counts = torch.bincount(tokens[:, 0] * VOCABULARY + tokens[:, 1], minlength=len(joint))
    expected = joint / joint.sum() * counts.sum()
    return float(stats.chisquare(counts.double(), expected).pvalue)


@pytest.mark.parametrize("seed", range(4))
def test_emitted_tokens_follow_the_target_exactly(seed: int) -> None:
    target = _distributions(3, seed=seed)
    draft = _distributions(2, seed=seed + 100)
    assert _p_value(_first_two_tokens(target, draft, seed=seed), target) > 1e-4


def test_a_rule_that_accepts_too_much_fails_the_same_test() -> None:
    def generous(target_probs, draft_probs, drafted, lengths, uniforms) -> Verdict:
        return verify(target_probs, draft_probs * 0.8, drafted, lengths, uniforms)

    target, draft = _distributions(3, seed=0), _distributions(2, seed=100)
    assert _p_value(_first_two_tokens(target, draft, rule=generous, seed=0), target) < 1e-9


def test_a_rule_that_redraws_from_the_target_after_a_rejection_fails_the_same_test() -> None:
    def careless(target_probs, draft_probs, drafted, lengths, uniforms) -> Verdict:
        verdict = verify(target_probs, draft_probs, drafted, lengths, uniforms)
        row = torch.arange(len(drafted))
        return Verdict(verdict.accepted, draw(target_probs[row, verdict.accepted], uniforms[:, -1]))

    target, draft = _distributions(3, seed=0), _distributions(2, seed=100)
    assert _p_value(_first_two_tokens(target, draft, rule=careless, seed=0), target) < 1e-9


def test_only_the_counted_drafts_of_a_row_are_accepted() -> None:
    target = _distributions(1, 4, seed=1).expand(4, -1, -1)
    drafted = torch.zeros(4, 3, dtype=torch.int64)
    uniforms = torch.zeros(4, 4)  # accepts everything
    verdict = verify(target, target[:, :3], drafted, torch.tensor([0, 1, 2, 3]), uniforms)
    assert verdict.accepted.tolist() == [0, 1, 2, 3]


def test_without_drafts_the_next_token_is_the_targets() -> None:
    target = torch.eye(VOCABULARY)[[3, 5]].unsqueeze(1)
    empty = torch.zeros(2, 0, dtype=torch.int64)
    verdict = verify(
        target, torch.zeros(2, 0, VOCABULARY), empty, torch.tensor([0, 0]), torch.rand(2, 1)
    )
    assert verdict.accepted.tolist() == [0, 0]
    assert verdict.next_token.tolist() == [3, 5]


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5))
def test_greedy_is_the_rule_for_one_hot_distributions(seed: int, rows: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    best = torch.randint(0, 3, (rows, count + 1), generator=generator)
    drafted = torch.randint(0, 3, (rows, count), generator=generator)
    lengths = torch.randint(0, count + 1, (rows,), generator=generator)
    one_hot = torch.eye(VOCABULARY)
    general = verify(
        one_hot[best],
        one_hot[drafted],
        drafted,
        lengths,
        torch.rand(rows, count + 1, generator=generator),
    )
    greedy = verify_greedy(best, drafted, lengths)
    assert greedy.accepted.tolist() == general.accepted.tolist()
    assert greedy.next_token.tolist() == general.next_token.tolist()


def test_residual_without_mass_falls_back_to_the_target() -> None:
    target = _distributions(3, seed=2)
    draft = target.clone()
    draft[1] = float("nan")
    draft[2] = 0.0
    residual = residual_probs(target, draft)
    assert torch.equal(residual[:2], target[:2])
    assert torch.allclose(residual[2], target[2])


def test_a_draft_that_is_not_finite_is_rejected_and_costs_no_exactness() -> None:
    target = _distributions(3, seed=3)
    broken = torch.full((1, 2, VOCABULARY), float("nan"))
    verdict = verify(
        target.unsqueeze(0), broken, torch.tensor([[1, 1]]), torch.tensor([2]), torch.zeros(1, 3)
    )
    assert verdict.accepted.item() == 0
    assert verdict.next_token.item() == draw(target[0], torch.zeros(())).item()


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True, width=32))
def test_draw_never_returns_an_impossible_token(seed: int, uniform: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(VOCABULARY, generator=generator)
    probs[torch.rand(VOCABULARY, generator=generator) < 0.6] = 0
    probs[seed % VOCABULARY] = 1e-30 if seed % 2 else 1.0
    assert probs[draw(probs, torch.tensor(uniform))] > 0


def test_draw_inverts_the_cumulative_distribution() -> None:
    probs = torch.tensor([0.25, 0.0, 0.5, 0.25])
    uniforms = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, 0.99])
    assert draw(probs.expand(6, -1), uniforms).tolist() == [0, 0, 2, 2, 3, 3]
