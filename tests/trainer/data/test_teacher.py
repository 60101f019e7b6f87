"""What the trainer's own target computes is what an engine would have recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aurora_model.decoder import causal_attend
from aurora_trainer.data.record import sample_from
from aurora_trainer.data.teacher import Teacher

LAYERS = (0, 1, 2)
ENTRIES = 64


@pytest.fixture
def teacher(target) -> Teacher:
    return Teacher(target.decoder.eval(), LAYERS)


@pytest.fixture
def bare(target, make_records):
    """bare(count, seed=0): samples of records that hold token ids alone."""
    accepted = replace(target.record_format, recomputed=True)

    def make(count: int, *, seed: int = 0):
        records = make_records(count, seed=seed)
        for record in records:
            record.ClearField("target")
        return [sample_from(f"1-{i}", each, accepted) for i, each in enumerate(records)]

    return make


def test_recomputed_distributions_agree_with_those_recorded(teacher, target, make_samples):
    for sample in make_samples(20):
        recomputed = teacher.recorded(sample, ENTRIES)
        assert recomputed.top_ids.shape == (sample.output_count, ENTRIES)
        rows = np.arange(sample.output_count)[:, None]
        by_token = np.zeros((sample.output_count, ENTRIES))
        by_token[rows, recomputed.top_ids] = np.exp(recomputed.log_probs.astype(np.float64))
        recorded = np.exp(sample.log_probs.astype(np.float64))
        assert np.abs(by_token[rows, sample.top_ids] - recorded).max() < 1e-3


@torch.no_grad()
def test_states_and_distributions_are_the_targets(teacher, target, make_samples):
    samples = make_samples(3)
    batch = teacher.pack(samples)
    ends = np.cumsum(batch.lengths)
    for sample, end in zip(samples, ends, strict=True):
        tokens = torch.from_numpy(sample.tokens[:-1]).long()[None]
        positions = torch.arange(tokens.shape[1])[None]
        _, states = target.decoder.states(tokens, positions, causal_attend, LAYERS)
        found = batch.hidden[:, end - tokens.shape[1] : end]
        torch.testing.assert_close(found, torch.cat(states, dim=-1), rtol=0, atol=0)
    rows = torch.tensor([0, 5, 21])
    some = torch.tensor([3, 9])
    whole = batch.log_probs(rows, None)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(3))
    torch.testing.assert_close(batch.log_probs(rows, some), whole[:, some], rtol=0, atol=0)


def test_the_cache_stays_within_its_bytes_and_changes_nothing(target, make_samples):
    samples = make_samples(6)
    roomy = Teacher(target.decoder, LAYERS)
    one = roomy.pack(samples[:1])
    limit = 3 * one.hidden.nbytes
    tight = Teacher(target.decoder, LAYERS, cache_bytes=limit)
    for _ in range(2):
        for start in range(4):
            few = samples[start : start + 3]
            found, expected = tight.pack(few), roomy.pack(few)
            assert 0 < tight.cached_bytes <= limit
            assert torch.equal(found.hidden, expected.hidden)
            assert torch.equal(found.final, expected.final)


def test_token_ids_alone_are_enough(teacher, bare, make_samples):
    whole, alone = teacher.pack(make_samples(4)), teacher.pack(bare(4))
    assert torch.equal(whole.rows, alone.rows)
    assert torch.equal(whole.final, alone.final)
    assert all(sample.size_bytes < 1000 for sample in bare(4))
