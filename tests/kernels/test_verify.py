"""The Triton form decides as the reference does, and its tokens are distributed as the target's."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from scipy import stats
from torch import Tensor

from aurora_kernels.rejection import Verdict, draw
from aurora_kernels.sampling import SamplingRows
from aurora_kernels.verify import Draws, reference, verify_logits

VOCABULARY = 11


@dataclass(frozen=True)
class Sampling:
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None


GREEDY = Sampling(temperature=0.0)
TRUNCATED = [Sampling(0.7, 3), Sampling(1.3, top_p=0.5), Sampling(0.8, top_k=5, top_p=0.8)]
SEEDED = [Sampling(seed=1), Sampling(0.9, top_k=4, seed=2)]


def triton_verify(*given, tile: int = 16) -> Verdict:
    from aurora_kernels.verify import triton

    return triton.verify_logits(*given, tile=tile)


def step(rows: list[Sampling], drafts: int, *, seed: int, device: str):
    """Arguments of a step in which the draft resembles the target; lengths differ by row."""
    generator = torch.Generator().manual_seed(seed)
    count, columns = len(rows), SamplingRows(rows, device)
    logits = 2 * torch.randn(count, drafts + 1, VOCABULARY, generator=generator)
    near = logits[:, :drafts] + torch.randn(count, drafts, VOCABULARY, generator=generator)
    draft_probs = near.softmax(-1)
    drafted = draw(draft_probs, torch.rand(count, drafts, generator=generator))
    lengths = torch.tensor([drafts - (row % 3 == 2) for row in range(count)]).clamp_min(0)
    shape = (len(columns.seeded), drafts + 1, VOCABULARY)
    noise = torch.empty(shape).exponential_(generator=generator)
    draws = Draws(
        torch.rand(count, drafts, generator=generator).to(device),
        torch.rand(count, drafts + 1, generator=generator).to(device),
        noise.to(device) if columns.seeded else None,
    )
    if not columns.undetermined:
        draws, draft_probs = draws._replace(accept=None, following=None), None
    probs = None if draft_probs is None else draft_probs.to(device)
    return logits.to(device), drafted.to(device), probs, lengths.to(device), columns, draws


def decide_alike(given, poisoned, *, tile: int = 16) -> Verdict:
    expected = reference.verify_logits(*given)
    with poisoned():
        found = triton_verify(*given, tile=tile)
    assert found.accepted.tolist() == expected.accepted.tolist()
    assert found.next_token.tolist() == expected.next_token.tolist()
    return found


def test_every_kind_of_row_in_one_batch(device, poisoned):
    rows = [Sampling(), GREEDY, *SEEDED, Sampling(1.7), *TRUNCATED]
    decide_alike(step(rows, 2, seed=0, device=device), poisoned)


def test_a_vocabulary_of_several_tiles(device, poisoned):
    rows = [Sampling(), GREEDY, SEEDED[0]] * 2
    decide_alike(step(rows, 3, seed=4, device=device), poisoned, tile=4)
    decide_alike(step(TRUNCATED[2:], 0, seed=4, device=device), poisoned, tile=4)


@pytest.mark.parametrize("rows", [[GREEDY] * 4, [GREEDY, *SEEDED]])
@pytest.mark.parametrize("drafts", [0, 3])
def test_a_batch_whose_rows_are_all_determined(rows, drafts, device, poisoned):
    decide_alike(step(rows, drafts, seed=drafts, device=device), poisoned)


def test_a_row_without_drafts_beside_others(device, poisoned):
    logits, drafted, probs, _, rows, draws = step([Sampling()] * 3, 2, seed=5, device=device)
    lengths = torch.tensor([0, 1, 2], device=device)
    # Accepts everything that counts.
    draws = draws._replace(accept=torch.zeros_like(draws.accept))
    found = decide_alike((logits, drafted, probs, lengths, rows, draws), poisoned)
    assert found.accepted.tolist() == [0, 1, 2]


def test_drafts_that_are_not_finite_or_certain_or_the_target_itself(device, poisoned):
    logits, drafted, probs, lengths, rows, draws = step([Sampling()] * 6, 1, seed=3, device=device)
    probs[0] = torch.nan
    probs[1, 0, 4] = torch.nan
    probs[2] = 0.0
    probs[3] = torch.eye(VOCABULARY, device=device)[drafted[3]]
    probs[4] = logits[4, :1].softmax(-1)
    lengths = torch.ones_like(lengths)
    draws = draws._replace(accept=torch.full_like(draws.accept, 0.999))
    decide_alike((logits, drafted, probs, lengths, rows, draws), poisoned)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=3), Sampling(top_p=0.9)])
def test_ties_and_certain_targets(sampling, device, poisoned):
    logits, *rest = step([sampling] * 3, 0, seed=1, device=device)
    logits[0] = 0.0
    logits[1] = -torch.inf
    logits[1, 0, 6] = 2.0
    logits[2, 0, :4] = 9.0
    found = decide_alike((logits, *rest), poisoned)
    assert found.next_token[1] == 6


def test_no_uniform_draws_an_impossible_token(device):
    logits, drafted, probs, lengths, rows, draws = step([Sampling()] * 4, 0, seed=1, device=device)
    logits[:, 0, 8:] = -torch.inf
    logits[:, 0, :2] = -torch.inf
    extremes = [[0.0], [1 - 2**-24], [0.0], [1 - 2**-24]]
    draws = draws._replace(following=torch.tensor(extremes, device=device))
    found = triton_verify(logits, drafted, probs, lengths, rows, draws, tile=4)
    assert found.next_token.tolist() == [2, 7, 2, 7]


def emitted(rule, *, rows: int, device: str) -> tuple[Tensor, Tensor]:
    """[rows]: the first tokens of many equal rows at K = 1, and [V] what they should follow."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0, 1.5], [0.0] * 5]).expand(rows, -1, -1)
    probs = torch.tensor([[0.05, 0.5, 0.15, 0.2, 0.1]]).expand(rows, -1, -1)
    uniforms = torch.rand(rows, 4, generator=generator)
    drafted = draw(probs, uniforms[:, :1])
    draws = Draws(uniforms[:, 1:2].to(device), uniforms[:, 2:].to(device), None)
    columns = SamplingRows([Sampling(temperature=0.8)] * rows, device)
    lengths = torch.ones(rows, dtype=torch.int64)
    given = (each.to(device) for each in (logits, drafted, probs, lengths))
    verdict = rule(*given, columns, draws)
    accepted, following = verdict.accepted.cpu(), verdict.next_token.cpu()
    return torch.where(accepted > 0, drafted[:, 0], following), (logits[0, 0] / 0.8).softmax(-1)


def p_value(tokens: Tensor, target: Tensor) -> float:
    counts = torch.bincount(tokens, minlength=len(target)).double()
    return float(
        stats.chisquare(counts, target.double() / target.double().sum() * len(tokens)).pvalue
    )


def test_emitted_tokens_follow_the_target_exactly(device):
    assert p_value(*emitted(triton_verify, rows=120, device=device)) > 1e-3


def test_a_rule_that_accepts_too_much_fails_the_same_test(device):
    def generous(logits, drafted, probs, *rest) -> Verdict:
        return reference.verify_logits(logits, drafted, probs * 0.2, *rest)

    assert p_value(*emitted(generous, rows=120, device=device)) < 1e-4


def test_the_cpu_takes_the_reference():
    given = step([Sampling(), GREEDY, *SEEDED, *TRUNCATED], 2, seed=0, device="cpu")
    ours, theirs = verify_logits(*given), reference.verify_logits(*given)
    assert torch.equal(ours.accepted, theirs.accepted)
    assert torch.equal(ours.next_token, theirs.next_token)
