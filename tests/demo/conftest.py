"""A tiny target with its vocabulary."""

from __future__ import annotations

import pytest

from aurora_demo.models import DemoModels
from aurora_demo.vocabulary import trained_vocabulary
from aurora_model.config import DecoderConfig
from aurora_model.draft import random_draft
from aurora_model.rope import DefaultRope
from aurora_model.weights import save_decoder

DOCUMENTS = ["def walk(top):\n    yield from sorted(top)\n" * 9]


@pytest.fixture
def models(tmp_path) -> DemoModels:
    vocabulary = trained_vocabulary(DOCUMENTS, 300)
    target = tmp_path / "target"
    target.mkdir()
    config = DecoderConfig(
        family="llama",
        vocab_size=vocabulary.size,
        hidden_size=16,
        intermediate_size=24,
        num_layers=3,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        rope=DefaultRope(10_000.0),
        tie_word_embeddings=True,
    )
    save_decoder(random_draft(config, seed=3), target)
    vocabulary.save(target)
    return DemoModels(target, tmp_path, "sha256:" + "0" * 64, "float32", {})
