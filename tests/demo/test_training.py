"""The parts of the demo's training: schedules, attention, deepening."""

from __future__ import annotations

import pytest
import torch

from aurora_demo.building import deepened, planned_work
from aurora_demo.recipe import RECIPE, Schedule
from aurora_demo.training import Windows, attend_by_products, whole_logits
from aurora_model.config import DecoderConfig
from aurora_model.decoder import causal_attend
from aurora_model.draft import random_draft
from aurora_model.rope import DefaultRope

CONFIG = DecoderConfig(
    family="llama",
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    rope=DefaultRope(10_000.0),
    tie_word_embeddings=True,
)


def test_the_rate_rises_stays_and_falls():
    rates = Schedule(steps=100, learning_rate=2.0, warmup_steps=10, decay_fraction=0.5).rates()
    assert len(rates) == 100
    assert rates[:2] == pytest.approx([0.2, 0.4])
    assert rates[10:50] == pytest.approx([2.0] * 40)
    assert rates[75] == pytest.approx(1.0)
    assert 0 < rates[-1] < 0.1


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_by_products_equals_torchs(kv_heads):
    query = torch.randn(3, 4, 17, 8)
    key, value = torch.randn(2, 3, kv_heads, 17, 8)
    expected = causal_attend(0, query, key, value)
    torch.testing.assert_close(attend_by_products(0, query, key, value), expected)


def test_windows_are_slices_of_their_streams():
    streams = [torch.arange(50), 100 + torch.arange(12)]
    windows = Windows(streams, [3, 2], 11, torch.Generator().manual_seed(0))
    drawn = windows.draw()
    assert drawn.shape == (5, 12)
    assert (drawn.diff(dim=1) == 1).all()
    assert (drawn[:3] < 50).all()
    assert (drawn[3:] >= 100).all()


def test_a_deepened_decoder_computes_the_same_and_learns_in_every_layer():
    shallow = random_draft(CONFIG, 3)
    deep = deepened(shallow, 6, 3)
    tokens = torch.randint(61, (2, 9))
    torch.testing.assert_close(whole_logits(deep, tokens), whole_logits(shallow, tokens))
    whole_logits(deep, tokens).logsumexp(-1).sum().backward()
    for layer in deep.layers:
        assert layer.attention.o_proj.weight.grad.abs().max() > 0


def test_the_draft_is_a_small_part_of_the_work():
    work = planned_work(RECIPE, RECIPE.vocabulary_size)
    assert 0 < work.draft < work.total / 3
    assert work.shallow < work.deep / 3
