"""A draft kind is its own module and a line in the registry: it learns, publishes and loads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from aurora_model.draft import StandaloneDraft, load_draft, publish_draft, registry
from aurora_model.draft.kind import Draft
from aurora_trainer.learning.learner import Learner, LearnerSettings


@dataclass(frozen=True)
class BigramConfig:
    vocab_size: int
    width: int
    num_layers: int = 0


class BigramDraft(Draft):
    """Predicts the next token from the last one alone."""

    kind = "bigram"

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.last = nn.Embedding(config.vocab_size, config.width)
        self.next = nn.Linear(config.width, config.vocab_size)

    @classmethod
    def read_config(cls, folder):
        return cls.parse_config(json.loads((folder / "config.json").read_text()), source=folder)

    @classmethod
    def parse_config(cls, content, *, source):
        return BigramConfig(**content)

    @classmethod
    def build(cls, config):
        return cls(config)

    @classmethod
    def load(cls, folder, *, dtype, device):
        draft = cls(cls.read_config(folder)).to(device, dtype)
        draft.load_state_dict(load_file(folder / "model.safetensors"))
        return draft

    @classmethod
    def random(cls, target, seed):
        torch.manual_seed(seed)
        return cls(BigramConfig(target.vocab_size, width=32))

    def config_content(self):
        return asdict(self.config)

    def save(self, folder):
        (folder / "config.json").write_text(json.dumps(self.config_content()))
        save_file(self.state_dict(), folder / "model.safetensors")

    def features(self, batch, target_hidden=None):
        return self.last(batch.tokens[0, batch.rows])

    def logits(self, features):
        return self.next(features)

    def multiplications(self, *, tokens, predictions):
        return predictions * self.config.vocab_size * self.config.width


@pytest.fixture
def bigram(monkeypatch):
    kinds = {"standalone": StandaloneDraft, "bigram": BigramDraft}
    monkeypatch.setattr(registry, "_KINDS", kinds)
    return registry.draft_kind("bigram")


def test_it_learns_and_its_checkpoint_loads_as_what_it_is(bigram, target, make_samples, tmp_path):
    samples, holdout = make_samples(200), make_samples(30, seed=1)
    draft = bigram.random(target.decoder.config, seed=3)
    learner = Learner(draft, LearnerSettings(objective="LK", learning_rate=1e-2))
    before = learner.evaluate(holdout)
    random = np.random.default_rng(0)
    for _ in range(100):
        learner.step([samples[i] for i in random.integers(len(samples), size=16)])

    assert learner.evaluate(holdout).acceptance > 2 * before.acceptance
    folder, manifest = publish_draft(
        learner.average, tmp_path, name="ckpt-1", target=target.identity
    )
    assert manifest.kind == "bigram"
    loaded, _ = load_draft(folder, target=target.identity, dtype=torch.float32)
    assert isinstance(loaded, BigramDraft)
    for name, weight in learner.average.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, rtol=0, atol=0)
