"""The drafter of a standalone checkpoint: a small decoder with a key-value cache of its own."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurora_inference.native.runner.cache import CachedAttention, KeyValueCache
from aurora_inference.native.runner.drafter import DrafterRoom, Proposal, WithoutStates
from aurora_inference.native.runner.drafter.cached import CachedRows
from aurora_inference.native.runner.sampler import Sampler
from aurora_inference.native.runner.target import Target
from aurora_inference.native.sequence import Sequence
from aurora_model.decoder import Decoder
from aurora_model.draft import StandaloneDraft, load_draft

_CATCH_UP_TOKENS = 256


class StandaloneDrafter(CachedRows, WithoutStates):
    """Used by the engine's thread only; `load` may run on any."""

    def __init__(self, name: str, digest: str, decoder: Decoder, room: DrafterRoom) -> None:
        super().__init__(
            KeyValueCache(
                decoder.config,
                rows=room.rows,
                capacity=room.capacity,
                dtype=next(decoder.parameters()).dtype,
                device=room.device.name,
            )
        )
        self.name = name
        self.digest = digest
        self._device = room.device.name
        self._decoder = decoder.eval()
        room.device.tune_draft(decoder)

    @classmethod
    def load(cls, folder: Path, *, digest: str, target: Target, room: DrafterRoom) -> Self:
        """Verifies and loads a checkpoint; raises CheckpointError."""
        draft, manifest = load_draft(
            folder,
            digest=digest,
            target=target.identity,
            dtype=room.device.draft_dtype(target.dtype),
            device=room.device.name,
        )
        assert isinstance(draft, StandaloneDraft)
        lacking = target.identity.vocab_size - draft.config.vocab_size
        if lacking:
            _pad_vocabulary(draft, lacking)
        return cls(manifest.name, manifest.digest, draft, room)

    def propose(self, count: int, sampler: Sampler) -> Proposal:
        for row, sequence in enumerate(self.sequences):
            self._catch_up(row, sequence)
        # The first step feeds a row's last two tokens: after a fully accepted proposal the last
        # drafted token has not been fed yet.
        starts = [len(sequence.tokens) - 2 for sequence in self.sequences]
        fed = torch.tensor([s.tokens[-2:] for s in self.sequences], device=self._device)
        tokens: list[Tensor] = []
        probs: list[Tensor] = []
        for step in range(count):
            token, step_probs = sampler.draft(self._next_logits(fed, starts), step)  # [m, 1]
            tokens.append(token)
            if step_probs is not None:
                probs.append(step_probs)
            starts = [start + fed.shape[1] for start in starts]
            fed = token
        for sequence in self.sequences:
            # The last drafted token has not been fed; `Sequence.advance` uncounts rejected ones.
            sequence.draft_cached = len(sequence.tokens) + count - 1
        return Proposal(torch.cat(tokens, dim=1), torch.cat(probs, dim=1) if probs else None)

    def _next_logits(self, tokens: Tensor, starts: Rows[int]) -> Tensor:
        attend = CachedAttention(
            self._cache, first_row=0, starts=list(starts), count=tokens.shape[1]
        )
        hidden = self._decoder(tokens, attend.positions, attend)
        return self._decoder.logits(hidden[:, -1:]).float()

    def _catch_up(self, row: int, sequence: Sequence) -> None:
        """Feeds what the row's cache lacks, except for the two tokens that `propose` feeds."""
        known = len(sequence.tokens) - 2
        while sequence.draft_cached < known:
            end = min(sequence.draft_cached + _CATCH_UP_TOKENS, known)
            piece = sequence.tokens[sequence.draft_cached : end]
            attend = CachedAttention(
                self._cache, first_row=row, starts=[sequence.draft_cached], count=len(piece)
            )
            tokens = torch.tensor([piece], device=self._device)
            self._decoder(tokens, attend.positions, attend)
            sequence.draft_cached = end


class _PaddedHead(nn.Module):
    """A head with `lacking` more tokens, whose probability is 0."""

    def __init__(self, head: nn.Module, lacking: int) -> None:
        super().__init__()
        self.head = head
        self._lacking = lacking

    def forward(self, hidden: Tensor) -> Tensor:
        return F.pad(self.head(hidden), (0, self._lacking), value=-torch.inf)


def _pad_vocabulary(decoder: Decoder, lacking: int) -> None:
    """Lets a decoder read tokens that only the target has, and never propose them."""
    table = F.pad(decoder.embed_tokens.weight.detach(), (0, 0, 0, lacking))
    decoder.embed_tokens = nn.Embedding.from_pretrained(table)  # type: ignore[no-untyped-call]  # torch gives it no types
    # Any module may stand in for a linear layer of a decoder.
    decoder.add_module("lm_head", _PaddedHead(decoder.lm_head, lacking))
