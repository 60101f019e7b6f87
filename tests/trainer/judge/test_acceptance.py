"""Teacher-forced acceptance against the whole distributions of target and draft."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aurora_model.draft import random_draft, small_draft_config
from aurora_trainer.data.sample import Sample
from aurora_trainer.judge import acceptance as module
from aurora_trainer.judge.acceptance import acceptance
from aurora_trainer.judge.sampling import Sampling

VOCABULARY, PROMPT = 64, 4

SAMPLINGS = [
    Sampling(1.0),
    Sampling(0.6),
    Sampling(1.5),
    Sampling(0.8, top_p=0.9),
    Sampling(1.2, top_k=5),
    Sampling(0.9, top_p=0.7, top_k=12),
]


@pytest.fixture(scope="module")
def draft(target):
    drafted = random_draft(small_draft_config(target.decoder.config), seed=3)
    with torch.no_grad():
        # Otherwise all of its distributions are nearly even.
        drafted.embed_tokens.weight *= 10
    return drafted.eval()


@pytest.fixture(scope="module")
def rows(target, draft, next_log_probs):
    """A text, and the log-probabilities of target and draft at each of its outputs, [T, V]."""
    tokens = torch.randint(VOCABULARY, (1, 100), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both = [
            next_log_probs(each, tokens)[0, PROMPT - 1 : -1] for each in (target.decoder, draft)
        ]
    return tokens[0].numpy().astype(np.int32), *both


@pytest.fixture(scope="module")
def sample(rows):
    """sample(entries): the text with so many of the target's tokens, unrounded."""
    tokens, target_rows, _ = rows

    def make(entries: int) -> Sample:
        log_probs, ids = target_rows.double().log_softmax(-1).topk(entries, dim=-1)
        tail = (1 - log_probs.exp().sum(-1)).clamp_min(0)
        return Sample(
            stream_id="1-0",
            request_id="request",
            domain="a",
            tokens=tokens,
            top_ids=ids.int().numpy(),
            log_probs=log_probs.numpy(),
            tail_mass=tail.numpy(),
        )

    return make


def score(draft, sample, sampling, **options):
    return acceptance(draft, sample, sampling, vocab_size=VOCABULARY, **options)


def processed(log_probs, sampling):
    """[T, V] after temperature, top-k and top-p, by sorting."""
    logits = log_probs.double() / sampling.temperature
    if sampling.top_k:
        lowest = logits.sort(descending=True).values[:, sampling.top_k - 1, None]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    probs, order = logits.softmax(-1).sort(descending=True)
    kept = torch.where(probs.cumsum(-1) - probs < sampling.top_p, probs, 0.0)
    return torch.zeros_like(probs).scatter(-1, order, kept / kept.sum(-1, keepdim=True))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_with_every_token_recorded_it_is_the_overlap_of_both(draft, rows, sample, sampling):
    _, target_rows, draft_rows = rows
    expected = torch.minimum(processed(target_rows, sampling), processed(draft_rows, sampling))
    found = score(draft, sample(VOCABULARY), sampling)
    np.testing.assert_allclose(found, expected.sum(-1), atol=1e-5)
    assert 0.01 < found.mean() < 0.99


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_with_fewer_recorded_it_is_a_lower_bound(draft, sample, sampling):
    exact = score(draft, sample(VOCABULARY), sampling)
    for entries in (1, 8, 32):
        assert (score(draft, sample(entries), sampling) <= exact + 1e-5).all()


def test_the_target_as_its_own_draft_is_always_accepted(target, sample):
    for sampling in (*SAMPLINGS, Sampling(0.0)):
        found = score(target.decoder, sample(VOCABULARY), sampling)
        np.testing.assert_allclose(found, 1.0, atol=1e-5)


def test_greedy_it_is_whether_both_agree(draft, rows, sample):
    _, target_rows, draft_rows = rows
    agree = target_rows.argmax(-1) == draft_rows.argmax(-1)
    assert 0 < agree.sum() < len(agree)
    for greedy_drafts in (False, True):
        found = score(draft, sample(8), Sampling(0.0), greedy_drafts=greedy_drafts)
        np.testing.assert_array_equal(found, agree.double())


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_greedy_draft_is_accepted_as_often_as_the_target_says_it(draft, rows, sample, sampling):
    _, target_rows, draft_rows = rows
    proposed = draft_rows.argmax(-1, keepdim=True)
    expected = processed(target_rows, sampling).gather(-1, proposed)[:, 0]
    found = score(draft, sample(VOCABULARY), sampling, greedy_drafts=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    unrecorded = (sample(1).top_ids != proposed.numpy())[:, 0]
    few = score(draft, sample(1), sampling, greedy_drafts=True)
    assert unrecorded.any()
    assert (few[unrecorded] == 0).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_that_the_draft_lacks_are_never_accepted(target, rows, sample, temperature):
    size = 40
    small = random_draft(
        replace(small_draft_config(target.decoder.config), vocab_size=size), seed=3
    ).eval()
    found = score(small, sample(VOCABULARY), Sampling(temperature))
    _, target_rows, _ = rows
    known = target_rows.softmax(-1)[:, :size].sum(-1).numpy()
    if temperature == 0:
        lacked = (target_rows.argmax(-1) >= size).numpy()
        assert lacked.any()
        assert (found[lacked] == 0).all()
    else:
        assert (found <= known + 1e-5).all()
        assert found.max() > 0


def test_rows_in_several_chunks_change_nothing(draft, sample, monkeypatch):
    whole = score(draft, sample(8), Sampling(1.0))
    monkeypatch.setattr("aurora_trainer.data.batch._LOGITS_CHUNK", 1)
    assert len(whole) > 64
    np.testing.assert_allclose(score(draft, sample(8), Sampling(1.0)), whole, atol=1e-6)


def test_a_wide_nucleus_is_sorted_whole(draft, rows, sample, monkeypatch):
    monkeypatch.setattr(module, "_NUCLEUS_TOKENS", 2)
    sampling = Sampling(1.0, top_p=0.95)
    _, target_rows, draft_rows = rows
    expected = torch.minimum(processed(target_rows, sampling), processed(draft_rows, sampling))
    found = score(draft, sample(VOCABULARY), sampling)
    np.testing.assert_allclose(found, expected.sum(-1), atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1e-30])
def test_logits_that_are_not_finite_are_not_accepted(target, sample, temperature):
    broken = random_draft(small_draft_config(target.decoder.config), seed=3).eval()
    with torch.no_grad():
        broken.lm_head.weight[7] = torch.inf
    assert (score(broken, sample(8), Sampling(temperature, top_p=0.9)) == 0).all()
