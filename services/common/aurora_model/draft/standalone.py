"""The standalone draft: a small language model of its own, with the target's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aurora_model.config import DecoderConfig, parse_config, read_config, to_hugging_face
from aurora_model.decoder import Decoder, packed_attend
from aurora_model.draft.kind import Draft, DraftConfig, PackedTokens
from aurora_model.weights import load_weights, save_decoder


class StandaloneDraft(Decoder, Draft):
    """A decoder whose features are its hidden states."""

    kind: ClassVar[str] = "standalone"
    config: DecoderConfig

    @classmethod
    def read_config(cls, folder: Path) -> DecoderConfig:
        return read_config(folder)

    @classmethod
    def parse_config(cls, content: Mapping[str, Any], *, source: str) -> DecoderConfig:
        return parse_config(content, source=source)

    @classmethod
    def build(cls, config: DraftConfig) -> StandaloneDraft:
        assert isinstance(config, DecoderConfig)
        return cls(config)

    @classmethod
    def load(cls, folder: Path, *, dtype: torch.dtype, device: str) -> StandaloneDraft:
        with torch.device("meta"):
            draft = cls(read_config(folder))
        load_weights(draft, folder, dtype=dtype, device=device)
        return draft

    @classmethod
    def random(cls, target: DecoderConfig, seed: int) -> StandaloneDraft:
        return random_draft(small_draft_config(target), seed)

    def config_content(self) -> dict[str, Any]:
        return to_hugging_face(self.config)

    def save(self, folder: Path) -> None:
        save_decoder(self, folder)

    def narrow(self, vocab_size: int) -> None:
        bos = self.config.bos_token_id
        self.config = replace(
            self.config,
            vocab_size=vocab_size,
            bos_token_id=bos if bos is not None and bos < vocab_size else None,
            eos_token_ids=tuple(each for each in self.config.eos_token_ids if each < vocab_size),
        )
        self.embed_tokens.num_embeddings = self.lm_head.out_features = vocab_size
        for table in (self.embed_tokens, self.lm_head):
            table.weight = nn.Parameter(table.weight.detach()[:vocab_size].clone())
        self.tie_embeddings()

    def features(self, batch: PackedTokens, target_hidden: Tensor | None = None) -> Tensor:
        hidden: Tensor = self(batch.tokens, batch.positions, packed_attend(batch.lengths))
        return hidden[0, batch.rows]

    @property
    def output_weight(self) -> Tensor:
        return self.lm_head.weight

    def multiplications(self, *, tokens: int, predictions: int) -> float:
        layers = sum(parameter.numel() for parameter in self.layers.parameters())
        return tokens * layers + predictions * self.config.vocab_size * self.config.hidden_size


def small_draft_config(target: DecoderConfig) -> DecoderConfig:
    """A day-0 draft for a target: one layer, half as wide, of the same family and vocabulary.

    Its embeddings are tied, since most of so small a draft would be embeddings.
    """
    heads = max(target.num_heads // 2, 1)
    kv_heads = next(
        count for count in range(min(target.num_kv_heads, heads), 0, -1) if heads % count == 0
    )
    return replace(
        target,
        num_layers=1,
        # A multiple of the heads, which transformers' Llama insists on.
        hidden_size=heads * (target.hidden_size // target.num_heads),
        intermediate_size=max(target.intermediate_size // 2, 1),
        num_heads=heads,
        num_kv_heads=kv_heads,
        tie_word_embeddings=True,
        sliding_window=None,
    )


def random_draft(config: DecoderConfig, seed: int) -> StandaloneDraft:
    """A float32 draft to train from: the same weights for the same seed.

    Weights are normal with `initializer_range`, those that write into the residual stream narrower
    by the square root of their number (GPT-2), biases zero, norms one.
    """
    draft = StandaloneDraft(config)
    generator = torch.Generator().manual_seed(seed)
    deviation = config.initializer_range
    into_residual = deviation / (2 * config.num_layers) ** 0.5
    for name, parameter in draft.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.normal_(parameter, std=into_residual, generator=generator)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, std=deviation, generator=generator)
    return draft
