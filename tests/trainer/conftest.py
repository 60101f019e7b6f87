"""A tiny target with peaked distributions, and trajectories that it produced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from aurora.buffer.v1 import buffer_pb2
from aurora_model.config import parse_config
from aurora_model.decoder import Decoder, causal_attend
from aurora_model.draft import random_draft
from aurora_model.target import TargetIdentity, target_identity
from aurora_model.weights import save_decoder
from aurora_trainer.record import RecordFormat, sample_from
from aurora_trainer.sample import Sample

VOCABULARY = 64
TOP = 8
PROMPT, OUTPUT = 4, 20

torch.set_num_threads(1)


@dataclass(frozen=True)
class TinyTarget:
    """A target on disk and in memory."""

    folder: Path
    identity: TargetIdentity
    decoder: Decoder

    @property
    def record_format(self) -> RecordFormat:
        return RecordFormat(
            self.identity.digest, self.identity.tokenizer_digest, VOCABULARY, max_tokens=128
        )


@pytest.fixture(scope="session")
def target(tmp_path_factory) -> TinyTarget:
    folder = tmp_path_factory.mktemp("target")
    config = parse_config(
        {
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "initializer_range": 0.2,
            "tie_word_embeddings": False,
        }
    )
    decoder = random_draft(config, seed=7)
    # Mostly the last token decides, and it decides clearly: what one layer can learn quickly.
    with torch.no_grad():
        decoder.embed_tokens.weight *= 10
        decoder.lm_head.weight *= 2
    save_decoder(decoder, folder)
    (folder / "tokenizer.json").write_text("{}")
    return TinyTarget(folder, target_identity(folder), decoder)


@pytest.fixture(scope="session")
def make_records(target) -> Callable[..., list[buffer_pb2.Trajectory]]:
    """make_records(count, seed=0): what the target says after random prompts."""

    @torch.no_grad()
    def make(count: int, *, seed: int = 0, domain: str = "a") -> list[buffer_pb2.Trajectory]:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(VOCABULARY, (count, PROMPT), generator=generator)
        for _ in range(OUTPUT):
            probs = log_probs_after(target.decoder, tokens)[:, -1].exp()
            drawn = torch.multinomial(probs, 1, generator=generator)
            tokens = torch.cat([tokens, drawn], dim=1)
        rows = log_probs_after(target.decoder, tokens)[:, PROMPT - 1 : -1]
        return [
            record(target, tokens[i], rows[i], request_id=f"{domain}-{seed}-{i}", domain=domain)
            for i in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def make_samples(target, make_records) -> Callable[..., list[Sample]]:
    """make_samples(count, seed=0): the same as samples with increasing stream ids."""

    def make(count: int, *, seed: int = 0, domain: str = "a") -> list[Sample]:
        records = make_records(count, seed=seed, domain=domain)
        return [
            sample_from(f"{1000 + seed}-{i}", each, target.record_format)
            for i, each in enumerate(records)
        ]

    return make


def log_probs_after(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """[B, T] -> [B, T, V]."""
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    return decoder.logits(decoder(tokens, positions, causal_attend)).log_softmax(-1)


def record(
    target: TinyTarget, tokens: torch.Tensor, rows: torch.Tensor, *, request_id: str, domain: str
) -> buffer_pb2.Trajectory:
    log_probs, ids = rows.topk(TOP, dim=-1)
    tail = (1 - log_probs.exp().sum(-1)).clamp_min(0)
    return buffer_pb2.Trajectory(
        request_id=request_id,
        domain=domain,
        target_digest=target.identity.digest,
        tokenizer_digest=target.identity.tokenizer_digest,
        prompt_tokens=tokens[:PROMPT].tolist(),
        output_tokens=tokens[PROMPT:].tolist(),
        target=buffer_pb2.TargetDistributions(
            k=TOP,
            token_ids=ids.numpy().astype("<u4").tobytes(),
            log_probs=log_probs.numpy().astype("<f2").tobytes(),
            tail_mass=tail.numpy().astype("<f2").tobytes(),
        ),
    )


@pytest.fixture(scope="session")
def next_log_probs() -> Callable[[Decoder, torch.Tensor], torch.Tensor]:
    """next_log_probs(decoder, tokens): [B, T] -> [B, T, V]."""
    return log_probs_after


@pytest.fixture(scope="session")
def plain_sample() -> Callable[..., Sample]:
    """plain_sample(number, domain="a", outputs=4): a sample for what never looks inside."""

    def make(number: int, *, domain: str = "a", outputs: int = 4) -> Sample:
        return Sample(
            stream_id=f"{number}-0",
            request_id=f"request-{number}",
            domain=domain,
            tokens=np.full(outputs + 2, number % VOCABULARY, np.int32),
            top_ids=np.zeros((outputs, 1), np.int32),
            log_probs=np.zeros((outputs, 1), np.float16),
            tail_mass=np.zeros(outputs, np.float16),
        )

    return make
