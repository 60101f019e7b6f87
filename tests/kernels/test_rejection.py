"""The accept/reject rule: accepted tokens are distributed as the target's, whatever the draft."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aurora_kernels.rejection import (
    Verdict,
    draw,
    gumbel_argmax,
    residual_probs,
    verify,
    verify_coupled,
)

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
    uniforms = torch.rand(SAMPLES, 7, generator=generator)
    draft_probs = draft.expand(SAMPLES, -1, -1)
    drafted = torch.stack([draw(draft_probs[:, i], uniforms[:, i]) for i in range(2)], dim=1)
    verdict = rule(
        target.expand(SAMPLES, -1, -1),
        draft_probs,
        drafted,
        torch.full((SAMPLES,), 2),
        uniforms[:, 2:4],
        uniforms[:, 4:],
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
    def generous(target_probs, draft_probs, *rest) -> Verdict:
        return verify(target_probs, draft_probs * 0.8, *rest)

    target, draft = _distributions(3, seed=0), _distributions(2, seed=100)
    assert _p_value(_first_two_tokens(target, draft, rule=generous, seed=0), target) < 1e-9


def test_a_rule_that_redraws_from_the_target_after_a_rejection_fails_the_same_test() -> None:
    def careless(target_probs, draft_probs, drafted, lengths, accept, following) -> Verdict:
        accepted = verify(target_probs, draft_probs, drafted, lengths, accept, following).accepted
        row = torch.arange(len(drafted))
        return Verdict(accepted, draw(target_probs[row, accepted], following[:, -1]))

    target, draft = _distributions(3, seed=0), _distributions(2, seed=100)
    assert _p_value(_first_two_tokens(target, draft, rule=careless, seed=0), target) < 1e-9


def test_only_the_counted_drafts_of_a_row_are_accepted() -> None:
    target = _distributions(1, 4, seed=1).expand(4, -1, -1)
    drafted = torch.zeros(4, 3, dtype=torch.int64)
    accepting, following = torch.zeros(4, 3), torch.zeros(4, 4)  # accepts everything
    verdict = verify(
        target, target[:, :3], drafted, torch.tensor([0, 1, 2, 3]), accepting, following
    )
    assert verdict.accepted.tolist() == [0, 1, 2, 3]


def test_without_drafts_the_next_token_is_the_targets() -> None:
    target = torch.eye(VOCABULARY)[[3, 5]].unsqueeze(1)
    empty = torch.zeros(2, 0, dtype=torch.int64)
    verdict = verify(
        target, torch.zeros(2, 0, VOCABULARY), empty, torch.tensor([0, 0]), empty, torch.rand(2, 1)
    )
    assert verdict.accepted.tolist() == [0, 0]
    assert verdict.next_token.tolist() == [3, 5]


def test_the_next_token_is_drawn_with_the_uniform_of_its_own_position() -> None:
    target = torch.full((3, 3, 2), 0.5)
    drafted = torch.zeros(3, 2, dtype=torch.int64)
    # Row i accepts i drafts; only the uniform after them says 1.
    accepting = torch.tensor([[0.9, 0.9], [0.0, 0.9], [0.0, 0.0]])
    draft = torch.tensor([0.9, 0.1]).expand(3, 2, 2)
    verdict = verify(target, draft, drafted, torch.full((3,), 2), accepting, torch.eye(3) * 0.9)
    assert verdict.accepted.tolist() == [0, 1, 2]
    assert verdict.next_token.tolist() == [1, 1, 1]


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_coupling_is_the_rule_for_one_hot_distributions(
    seed: int, rows: int, count: int, without_probs: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    best = torch.randint(0, 3, (rows, count + 1), generator=generator)
    drafted = torch.randint(0, 3, (rows, count), generator=generator)
    lengths = torch.randint(0, count + 1, (rows,), generator=generator)
    one_hot = torch.eye(VOCABULARY)
    general = verify(
        one_hot[best],
        one_hot[drafted] * (not without_probs),
        drafted,
        lengths,
        torch.rand(rows, count, generator=generator),
        torch.rand(rows, count + 1, generator=generator),
    )
    coupled = verify_coupled(best, drafted, lengths)
    assert coupled.accepted.tolist() == general.accepted.tolist()
    assert coupled.next_token.tolist() == general.next_token.tolist()


def _coupled_pairs(
    first: torch.Tensor, second: torch.Tensor, drafts: torch.Tensor, *, noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """[n, 2]: the first two tokens at K = 2 by the coupling, and [n] how many were accepted.

    The target draws from first [V], then from second[first token] [V, V], a draft that ignores its
    context from drafts [2, V]; noise [n, 2, V] is that of the two positions.
    """
    rows = len(noise)
    drafted = gumbel_argmax(drafts.expand(rows, -1, -1), noise)
    one = gumbel_argmax(first.expand(rows, -1), noise[:, 0])
    # What verification sees: the target after the drafted token, right or wrong.
    two = gumbel_argmax(second[drafted[:, 0]], noise[:, 1])
    bonus = torch.zeros_like(one)
    verdict = verify_coupled(torch.stack([one, two, bonus], dim=1), drafted, torch.full((rows,), 2))
    # A rejection at once leaves the second token to the next step, which has the same noise.
    redone = gumbel_argmax(second[verdict.next_token], noise[:, 1])
    accepted = verdict.accepted
    emitted = torch.where(accepted > 0, drafted[:, 0], verdict.next_token)
    following = torch.where(accepted > 1, drafted[:, 1], verdict.next_token)
    following = torch.where(accepted > 0, following, redone)
    return torch.stack([emitted, following], dim=1), accepted


def _joint_p_value(tokens: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> float:
    joint = (first.unsqueeze(1) * second).flatten().double()
    counts = torch.bincount(tokens[:, 0] * VOCABULARY + tokens[:, 1], minlength=len(joint))
    expected = joint / joint.sum() * counts.sum()
    return float(stats.chisquare(counts.double(), expected).pvalue)


def _exponential(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(*shape, VOCABULARY).exponential_(generator=generator)


@pytest.mark.parametrize("seed", range(4))
def test_coupled_pairs_follow_the_target_exactly(seed: int) -> None:
    first, second = _distributions(seed=seed), _distributions(VOCABULARY, seed=seed + 50)
    noise = _exponential(SAMPLES, 2, seed=seed)
    tokens, _ = _coupled_pairs(first, second, _distributions(2, seed=seed + 100), noise=noise)
    assert _joint_p_value(tokens, first, second) > 1e-4


def test_positions_that_share_their_noise_fail_the_same_test() -> None:
    first, second = _distributions(seed=0), _distributions(VOCABULARY, seed=50)
    noise = _exponential(SAMPLES, 1, seed=0).expand(-1, 2, -1)
    tokens, _ = _coupled_pairs(first, second, _distributions(2, seed=100), noise=noise)
    assert _joint_p_value(tokens, first, second) < 1e-9


def test_coupled_pairs_are_the_same_whatever_the_draft() -> None:
    first, second = _distributions(seed=0), _distributions(VOCABULARY, seed=50)
    noise = _exponential(SAMPLES, 2, seed=0)
    outcomes = [
        _coupled_pairs(first, second, _distributions(2, seed=draft), noise=noise)
        for draft in (100, 101, 102)
    ]
    assert all(torch.equal(tokens, outcomes[0][0]) for tokens, _ in outcomes)
    assert not torch.equal(outcomes[0][1], outcomes[1][1])


@pytest.mark.parametrize("seed", range(4))
def test_coupled_draws_agree_as_often_as_their_bound_says(seed: int) -> None:
    target, draft = _distributions(2, seed=seed)
    noise = _exponential(SAMPLES, seed=seed)
    agreed = gumbel_argmax(target.expand(SAMPLES, -1), noise) == gumbel_argmax(
        draft.expand(SAMPLES, -1), noise
    )
    distance = float((target - draft).abs().sum()) / 2
    assert (1 - distance) / (1 + distance) - 0.01 < agreed.double().mean() < 1 - distance + 0.01


def test_gumbel_argmax_never_returns_an_impossible_token() -> None:
    probs = torch.tensor([0.0, 1e-30, 0.0])
    noise = torch.tensor([torch.finfo(torch.float32).tiny, 36.0, 1.0])
    assert gumbel_argmax(probs, noise) == 1


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
        target.unsqueeze(0),
        broken,
        torch.tensor([[1, 1]]),
        torch.tensor([2]),
        torch.zeros(1, 2),
        torch.zeros(1, 3),
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
