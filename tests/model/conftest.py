"""Tiny random models, made and saved by transformers, and how to run ours and theirs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Read by OpenMP when torch is imported: threads that spin starve the others on a small machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder, causal_attend
from aurora_model.draft import random_draft
from aurora_model.rope import DefaultRope
from aurora_model.target import TargetIdentity

VOCAB_SIZE = 97
_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


class Models:
    """Builds models and computes their logits over whole sequences."""

    vocab_size = VOCAB_SIZE

    def reference(self, family: str, **config: Any) -> PreTrainedModel:
        """A random model of transformers; biases and norms are random too."""
        generator = torch.Generator().manual_seed(7)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(family, **{**_SHAPE, "sliding_window": None, **config})
        )
        scatter(model, generator)
        return model.eval()

    def tokens(self, batch: int = 2, length: int = 50) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return torch.randint(0, VOCAB_SIZE, (batch, length), generator=generator)

    def logits(self, decoder: Decoder, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
        with torch.inference_mode():
            return decoder.logits(decoder(tokens, positions, causal_attend))

    def reference_logits(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(tokens).logits

    def scatter(self, model: torch.nn.Module) -> None:
        scatter(model, torch.Generator().manual_seed(11))


def scatter(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Makes every parameter random, norms around one, so that none can be forgotten unseen."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
        else:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3, generator=generator)


@pytest.fixture(scope="session")
def models() -> Models:
    return Models()


@pytest.fixture
def config() -> DecoderConfig:
    return DecoderConfig(
        family="llama",
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        rope=DefaultRope(10_000.0),
    )


@pytest.fixture
def draft(config: DecoderConfig) -> Decoder:
    return random_draft(config, seed=1)


@pytest.fixture
def target() -> TargetIdentity:
    return TargetIdentity("sha256:target", "sha256:tokenizer", VOCAB_SIZE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "drafts"
