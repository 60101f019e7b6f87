"""The EAGLE-3 head: one decoder layer that reads the target's hidden states (arXiv 2503.01840).

The state of a position is three of the target's hidden states there, projected to one; that of a
position which the target has not seen yet is what the head itself put out for it. State and next
token together predict the token after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aurora_common.errors import CheckpointError
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Attend, Attention, Decoder, GatedMlp
from aurora_model.draft.eagle3_layout import (
    TO_DRAFT,
    TO_TARGET,
    Eagle3Config,
    eagle3_content,
    is_head,
    layer_ids_for,
    parse_eagle3,
    read_eagle3,
    tensor_layout,
)
from aurora_model.draft.eagle3_unroll import unrolled_states
from aurora_model.draft.kind import Draft, DraftConfig, PackedTokens, Predictions
from aurora_model.rotary import Rotary
from aurora_model.target import TargetIdentity
from aurora_model.weights import load_tensors, save_tensors, tensor_shapes


class Eagle3Draft(Draft):
    """A head for one target; without an embedding or output layer of its own it uses the target's.

    Proposing takes `project` for the positions that the target has seen, `forward` from one
    position to the next, and `logits`, whose columns stand for `token_ids`.
    """

    kind: ClassVar[str] = "eagle3"
    needs_target: ClassVar[bool] = True
    config: Eagle3Config
    # int64 [draft V]: how much a token's id grows from draft to target; only with a reduced
    # vocabulary.
    d2t: Tensor

    def __init__(self, config: Eagle3Config) -> None:
        super().__init__()
        self.config = config
        layer, hidden = config.layer, config.layer.hidden_size
        self.fc = nn.Linear(3 * config.target_hidden_size, hidden, bias=False)
        self.embedding_norm = nn.RMSNorm(hidden, eps=layer.rms_norm_eps)
        self.hidden_norm = nn.RMSNorm(hidden, eps=layer.rms_norm_eps)
        self.attention = Attention(layer, 0)
        fused = self.attention.qkv_proj
        self.attention.qkv_proj = nn.Linear(
            2 * hidden, fused.out_features, bias=fused.bias is not None
        )
        self.mlp_norm = nn.RMSNorm(hidden, eps=layer.rms_norm_eps)
        self.mlp = GatedMlp(layer)
        self.norm = nn.RMSNorm(hidden, eps=layer.rms_norm_eps)
        self.rotary = Rotary(layer)
        self.embed_tokens = (
            nn.Embedding(layer.vocab_size, hidden) if config.owns_embedding else None
        )
        self.lm_head = (
            nn.Linear(hidden, config.draft_vocab_size, bias=False) if config.owns_head else None
        )
        if config.is_reduced:
            self.register_buffer(TO_TARGET, torch.zeros(config.draft_vocab_size, dtype=torch.int64))
        self._target: _Target | None = None

    @classmethod
    def describes(cls, folder: Path) -> bool:
        return is_head(folder)

    @classmethod
    def read_config(cls, folder: Path) -> Eagle3Config:
        return read_eagle3(folder)

    @classmethod
    def parse_config(cls, content: Mapping[str, Any], *, source: str) -> Eagle3Config:
        return parse_eagle3(content, source=source)

    @classmethod
    def build(cls, config: DraftConfig) -> Eagle3Draft:
        assert isinstance(config, Eagle3Config)
        return cls(config)

    @classmethod
    def load(cls, folder: Path, *, dtype: torch.dtype, device: str) -> Eagle3Draft:
        config = read_eagle3(folder)
        with torch.device("meta"):
            draft = cls(config)
        maps = {TO_TARGET, TO_DRAFT}
        found = maps & tensor_shapes(folder).keys() if config.is_reduced else set()
        layout = tensor_layout(config, with_to_draft=TO_DRAFT in found)
        # Maps of a whole vocabulary say nothing.
        state = load_tensors(
            folder, layout, dtype=dtype, device=device, ignored=() if config.is_reduced else maps
        )
        to_draft = state.pop(TO_DRAFT, None)
        draft.load_state_dict(state, assign=True)
        draft.to(device)
        if config.is_reduced:
            _check_maps(folder, draft, to_draft)
        return draft

    @classmethod
    def random(cls, target: DecoderConfig, seed: int) -> Eagle3Draft:
        """A layer like the target's, with the target's embedding, output layer and vocabulary.

        What the layer adds to is the normed state: the target's are of any size, and a large one
        would drown what so young a layer adds.
        """
        layer = replace(
            target,
            family="llama",
            num_layers=1,
            attention_bias=False,
            mlp_bias=False,
            tie_word_embeddings=False,
            sliding_window=None,
        )
        config = Eagle3Config(
            layer=layer,
            draft_vocab_size=target.vocab_size,
            target_hidden_size=target.hidden_size,
            layer_ids=layer_ids_for(target.num_layers),
            norm_before_residual=True,
        )
        draft = cls(config)
        generator = torch.Generator().manual_seed(seed)
        deviation = target.initializer_range
        for name, parameter in draft.named_parameters():
            narrow = name.endswith(("o_proj.weight", "down_proj.weight"))
            if parameter.dim() > 1:
                # As the standalone draft's: narrower where it writes into the residual stream.
                std = deviation / 2**0.5 if narrow else deviation
                nn.init.normal_(parameter, std=std, generator=generator)
        return draft

    def config_content(self) -> dict[str, Any]:
        owned = {
            "owns_embedding": self.config.owns_embedding,
            "owns_head": self.config.owns_head,
        }
        return eagle3_content(self.config) | owned

    def save(self, folder: Path) -> None:
        state = self.state_dict()
        if self.config.is_reduced:
            to_draft = torch.zeros(self.config.vocab_size, dtype=torch.bool)
            to_draft[self.d2t.cpu() + torch.arange(self.config.draft_vocab_size)] = True
            state[TO_DRAFT] = to_draft
        layout = tensor_layout(self.config, with_to_draft=self.config.is_reduced)
        save_tensors(folder, state, layout, config=eagle3_content(self.config))

    def check(self, target: TargetIdentity) -> None:
        """Raises CheckpointError naming what of the target the head does not fit."""
        config, shape = self.config, target.config
        if shape is None:
            raise CheckpointError("an EAGLE-3 head needs to know the shape of its target")
        ids = config.states_of(shape.num_layers)
        own = config.layer.hidden_size
        problems = [
            problem
            for wrong, problem in (
                (
                    config.vocab_size != shape.vocab_size,
                    f"its vocab_size is {config.vocab_size}: allowed is the target's, "
                    f"{shape.vocab_size}",
                ),
                (
                    config.target_hidden_size != shape.hidden_size,
                    f"it reads hidden states of {config.target_hidden_size} values: the target's "
                    f"have {shape.hidden_size}",
                ),
                (
                    sorted({*ids}) != [*ids] or ids[0] < 0 or ids[-1] > shape.num_layers,
                    f"it reads the target's layers {list(ids)}: allowed are three different ones "
                    f"from 0 to {shape.num_layers}",
                ),
                (
                    not config.owns_embedding and own != shape.hidden_size,
                    f"it has no embedding of its own, and the target's has {shape.hidden_size} "
                    f"values a token, not {own}",
                ),
                (
                    not config.owns_head and (own != shape.hidden_size or config.is_reduced),
                    f"it has no output layer of its own, and the target's takes "
                    f"{shape.hidden_size} values to {shape.vocab_size} tokens, not {own} to "
                    f"{config.draft_vocab_size}",
                ),
            )
            if wrong
        ]
        if problems:
            raise CheckpointError("; ".join(problems))

    def attach(self, target: Decoder) -> None:
        self._target = _Target(target)

    def target_layers(self, target: DecoderConfig) -> tuple[int, ...]:
        return self.config.states_of(target.num_layers)

    @property
    def token_ids(self) -> Tensor | None:
        if not self.config.is_reduced:
            return None
        return self.d2t + torch.arange(len(self.d2t), device=self.d2t.device)

    def project(self, target_hidden: Tensor) -> Tensor:
        """The target's states side by side, [..., 3 × target hidden] -> [..., hidden]."""
        state: Tensor = self.fc(target_hidden.to(self.norm.weight.dtype))
        return state

    def forward(self, tokens: Tensor, states: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The states of the positions after these.

        tokens [B, T] int64: the token after each position; states [B, T, hidden] and positions
        [B, T] int64: of the positions themselves. Returns [B, T, hidden].
        """
        normed = self.hidden_norm(states)
        residual = normed if self.config.norm_before_residual else states
        embedded = self._embedded(tokens).to(states.dtype)
        read = torch.cat((self.embedding_norm(embedded), normed), dim=-1)
        hidden = residual + self.attention(read, self.rotary(positions, states.dtype), attend)
        following: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return following

    def logits(self, features: Tensor) -> Tensor:
        """States [..., hidden] -> [..., draft V], of the token after the one that they know."""
        normed: Tensor = self.norm(features)
        if self.lm_head is not None:
            own: Tensor = self.lm_head(normed)
            return own
        target = self._attached()
        return target.logits(normed.to(target.norm.weight.dtype)).to(normed.dtype)

    def features(self, batch: PackedTokens, target_hidden: Tensor | None = None) -> Tensor:
        """Of the first token of a proposal; every predicting position needs one before it."""
        found = self.unrolled(batch, target_hidden, steps=1)
        assert len(found.rows) == len(batch.rows), "a sequence predicts from its first token"
        return found.features

    def unrolled(
        self, batch: PackedTokens, target_hidden: Tensor | None = None, *, steps: int
    ) -> Predictions:
        """Each position as the first to the last token of a proposal that began before it.

        The training-time test of EAGLE-3: later tokens of a proposal follow from the head's own
        states, and see the target's only up to where the proposal began.
        """
        assert target_hidden is not None, "an EAGLE-3 head needs the target's hidden states"
        return unrolled_states(self, batch, self.project(target_hidden), steps)

    def multiplications(self, *, tokens: int, predictions: int) -> float:
        layer = sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if not name.startswith(("embed_tokens", "lm_head"))
        )
        head = self.config.draft_vocab_size * self.config.layer.hidden_size
        return tokens * layer + predictions * head

    def _embedded(self, tokens: Tensor) -> Tensor:
        table = self._attached().embed_tokens if self.embed_tokens is None else self.embed_tokens
        embedded: Tensor = table(tokens)
        return embedded

    def _attached(self) -> Decoder:
        assert self._target is not None, "the head uses the target's tensors: attach it first"
        return self._target.decoder


class _Target:
    """Refers to the target, which is neither part of the head nor copied with it."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __deepcopy__(self, memo: dict[int, object]) -> _Target:
        return self


def _check_maps(folder: Path, draft: Eagle3Draft, to_draft: Tensor | None) -> None:
    ids, size = draft.token_ids, draft.config.vocab_size
    assert ids is not None
    lowest, highest = (int(extreme) for extreme in ids.aminmax())
    if lowest < 0 or highest >= size:
        raise CheckpointError(
            f"{TO_TARGET} in {folder} leads to the tokens {lowest} to {highest}: allowed is 0 to "
            f"{size - 1}"
        )
    if len(set(ids.tolist())) < len(ids):
        raise CheckpointError(f"{TO_TARGET} in {folder} leads to one token twice")
    if to_draft is not None and not torch.equal(to_draft.nonzero()[:, 0], ids.sort().values):
        raise CheckpointError(f"{TO_TARGET} and {TO_DRAFT} in {folder} do not name the same tokens")
