"""The Llama-family decoder that both the target and the standalone draft are.

Decoding feeds one to eight tokens at a time, when the overhead of a torch call rivals its
arithmetic: hence the fused projections and the joint rotation of queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurora_model.config import DecoderConfig
from aurora_model.rotary import Rotary, Rotation


class Attend(Protocol):
    """Attention of new tokens; owns the mask and any cache."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [B, H, T, D], key and value [B, Hkv, T, D], rotary applied -> [B, H, T, D]."""


def causal_attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention over full sequences, without a cache."""
    return F.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
    )


def packed_attend(lengths: Sequence[int]) -> Attend:
    """Causal attention within each of the sequences that lie end to end."""
    sizes = list(lengths)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = zip(*(torch.split(each, sizes, dim=2) for each in (query, key, value)), strict=True)
        return torch.cat([causal_attend(layer, *part) for part in parts], dim=2)

    return attend


class Decoder(nn.Module):
    """Tokens to hidden states to logits.

    Its linear layers are only ever called, so each may be replaced by any module that maps
    [..., in] to [..., out]. With tied embeddings `lm_head` shares the embedding's Parameter.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, index) for index in range(config.num_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rotary = Rotary(config)
        self.tie_embeddings()

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """tokens and positions [B, T] int64 -> hidden [B, T, hidden], final norm applied."""
        return self.states(tokens, positions, attend)[0]

    def states(
        self, tokens: Tensor, positions: Tensor, attend: Attend, layers: Sequence[int] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """The final hidden states, normed, and those that enter each of `layers`, all
        [B, T, hidden].

        Layer 0 is entered by the embeddings; the number of layers stands for what leaves the last.
        """
        hidden: Tensor = self.embed_tokens(tokens)
        rotation: Rotation = self.rotary(positions, hidden.dtype)
        entering = [hidden] if 0 in layers else []
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, rotation, attend)
            if index + 1 in layers:
                entering.append(hidden)
        normed: Tensor = self.norm(hidden)
        return normed, entering

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., hidden] -> [..., V]."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def tie_embeddings(self) -> None:
        """Makes `lm_head` share the embedding's Parameter if the config ties them."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight


class DecoderLayer(nn.Module):
    """Attention and a gated MLP, each on the normed hidden states and added to them."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attention = Attention(config, index)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = GatedMlp(config)

    def forward(self, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), rotation, attend)
        added: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return added


class Attention(nn.Module):
    """Grouped-query attention; query, key and value come from one projection."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self._index = index
        self._heads = config.num_heads
        self._kv_heads = config.num_kv_heads
        self._head_dim = config.head_dim
        width = config.num_heads * config.head_dim
        fused_width = width + 2 * config.num_kv_heads * config.head_dim
        self.qkv_proj = nn.Linear(config.hidden_size, fused_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=config.output_bias)
        self.qk_norm = QueryKeyNorm(config) if config.qk_norm else None

    def forward(self, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        turned = self._heads + self._kv_heads
        fused: Tensor = self.qkv_proj(hidden)
        heads = fused.view(*fused.shape[:-1], turned + self._kv_heads, self._head_dim)
        states = heads[:, :, :turned]  # [B, T, H + Hkv, D]
        if self.qk_norm is not None:
            states = self.qk_norm(states)
        states = rotation.apply(states).transpose(1, 2)
        value = heads[:, :, turned:].transpose(1, 2)
        attended = attend(self._index, states[:, : self._heads], states[:, self._heads :], value)
        projected: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return projected


class QueryKeyNorm(nn.Module):
    """RMS norm of each query and key head, with one weight for all queries and one for all keys."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self._heads = config.num_heads
        self._kv_heads = config.num_kv_heads
        self._eps = config.rms_norm_eps
        self.query_weight = nn.Parameter(torch.ones(config.head_dim))
        self.key_weight = nn.Parameter(torch.ones(config.head_dim))

    def forward(self, states: Tensor) -> Tensor:
        """states [B, T, H + Hkv, D], queries first."""
        width = states.shape[-1]
        weight = torch.cat(
            (
                self.query_weight.expand(self._heads, width),
                self.key_weight.expand(self._kv_heads, width),
            )
        )
        return F.rms_norm(states, (width,), None, self._eps) * weight


class GatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x)); gate and up come from one projection."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.intermediate_size
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=config.mlp_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(hidden).chunk(2, dim=-1)
        lowered: Tensor = self.down_proj(F.silu(gate) * up)
        return lowered
