"""The drafter of an EAGLE-3 head: one layer that reads the target's hidden states.

A position's state is the target's, side by side and projected, once the target has read it; while
proposing it is what the head put out for it. The head's keys of drafted tokens are made anew from
the target's states when these are accepted.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aurora_inference.native.runner.cache import CachedAttention, KeyValueCache
from aurora_inference.native.runner.drafter import DrafterRoom, Proposal
from aurora_inference.native.runner.drafter.cached import CachedRows
from aurora_inference.native.runner.sampler import Sampler
from aurora_inference.native.runner.target import Target
from aurora_inference.native.sequence import Sequence
from aurora_model.draft import Eagle3Draft, load_draft

_CATCH_UP_TOKENS = 256
# Rows that lack at most so many positions catch up together, in the first step of a proposal.
_RAGGED_TOKENS = 16
# Rows that do not draft catch up whenever they lack so many, as the target's states are wide.
_MOST_STATES = 64


class Eagle3Drafter(CachedRows):
    """Drafts for a batch whose rows got any number of tokens each in the last step.

    Used by the engine's thread only; `load` may run on any.
    """

    def __init__(
        self, name: str, digest: str, head: Eagle3Draft, target: Target, room: DrafterRoom
    ) -> None:
        """`head`: with the target attached."""
        super().__init__(
            KeyValueCache(
                head.config.layer,
                rows=room.rows,
                capacity=room.capacity + _RAGGED_TOKENS,
                dtype=head.norm.weight.dtype,
                device=room.device.name,
            )
        )
        self.name = name
        self.digest = digest
        self.target_layers = head.target_layers(target.decoder.config)
        self._device = room.device.name
        self._head = head.eval()
        self._token_ids = head.token_ids
        # Of tokens that a reduced vocabulary lacks, the logits are never written.
        whole = (room.rows, 1, target.identity.vocab_size)
        self._logits = torch.full(whole, -torch.inf, device=self._device)
        # By sequence: the target's states of the positions behind its `draft_cached`.
        self._states: dict[Sequence, list[Tensor]] = {}
        room.device.tune_draft(head)

    @classmethod
    def load(cls, folder: Path, *, digest: str, target: Target, room: DrafterRoom) -> Self:
        """Verifies and loads a checkpoint; raises CheckpointError."""
        head, manifest = load_draft(
            folder,
            digest=digest,
            target=target.identity,
            dtype=room.device.draft_dtype(target.dtype),
            device=room.device.name,
        )
        assert isinstance(head, Eagle3Draft)
        head.attach(target.decoder)
        return cls(manifest.name, manifest.digest, head, target, room)

    def observe(self, read: Rows[tuple[Sequence, int]], states: Tensor) -> None:
        pieces = torch.split(states, [count for _, count in read])
        for (sequence, _), piece in zip(read, pieces, strict=True):
            held = self._states.setdefault(sequence, [])
            # Before the new ones, whose tokens the sequence does not have yet.
            if len(held) >= _MOST_STATES and sequence in self.sequences:
                self._catch_up(self.sequences.index(sequence), sequence)
            self._states[sequence].append(piece)

    def remove(self, sequence: Sequence) -> None:
        super().remove(sequence)
        self._states.pop(sequence, None)

    def propose(self, count: int, sampler: Sampler) -> Proposal:
        for row, sequence in enumerate(self.sequences):
            if _known(sequence) - sequence.draft_cached > _RAGGED_TOKENS:
                self._catch_up(row, sequence)
        state = self._newest_states()
        tokens: list[Tensor] = []
        probs: list[Tensor] = []
        for step in range(count):
            if step > 0:
                starts = [_known(sequence) + step - 1 for sequence in self.sequences]
                state = self._following(tokens[-1], state, starts, first_row=0)
            token, step_probs = sampler.draft(self._whole_logits(state), step)  # [m, 1]
            tokens.append(token)
            if step_probs is not None:
                probs.append(step_probs)
        return Proposal(torch.cat(tokens, dim=1), torch.cat(probs, dim=1) if probs else None)

    def _newest_states(self) -> Tensor:
        """[m, 1, hidden]: the states behind each row's newest token; feeds what rows lack."""
        starts = [sequence.draft_cached for sequence in self.sequences]
        lacking = [
            _known(sequence) - start for sequence, start in zip(self.sequences, starts, strict=True)
        ]
        tokens = [
            torch.tensor(sequence.tokens[-count:])
            for sequence, count in zip(self.sequences, lacking, strict=True)
        ]
        states = self._head.project(torch.cat([self._taken(each) for each in self.sequences]))
        following = self._following(
            pad_sequence(tokens, batch_first=True).to(self._device),
            pad_sequence(list(torch.split(states, lacking)), batch_first=True),
            starts,
            first_row=0,
        )
        for sequence in self.sequences:
            sequence.draft_cached = _known(sequence)
        rows = torch.arange(len(lacking), device=self._device)
        return following[rows, torch.tensor(lacking, device=self._device) - 1].unsqueeze(1)

    def _catch_up(self, row: int, sequence: Sequence) -> None:
        """Feeds what a row lacks, except for its last position, which `propose` feeds."""
        states = self._taken(sequence)
        for piece in torch.split(states[:-1], _CATCH_UP_TOKENS):
            start = sequence.draft_cached
            following = sequence.tokens[start + 1 : start + 1 + len(piece)]
            tokens = torch.tensor([following], device=self._device)
            self._following(tokens, self._head.project(piece[None]), [start], first_row=row)
            sequence.draft_cached += len(piece)
        self._states[sequence] = [states[-1:]]

    def _taken(self, sequence: Sequence) -> Tensor:
        """[n, 3 × target hidden]: the target's states of the positions that a row lacks."""
        held = self._states[sequence]
        self._states[sequence] = []
        return held[0] if len(held) == 1 else torch.cat(held)

    def _following(
        self, tokens: Tensor, states: Tensor, starts: list[int], *, first_row: int
    ) -> Tensor:
        """Feeds positions from `starts` on, with their states and the tokens after them [m, T]."""
        attend = CachedAttention(
            self._cache, first_row=first_row, starts=starts, count=tokens.shape[1]
        )
        following: Tensor = self._head(tokens, states, attend.positions, attend)
        return following

    def _whole_logits(self, state: Tensor) -> Tensor:
        """[m, 1, hidden] -> [m, 1, V] float32 over the target's vocabulary."""
        logits = self._head.logits(state).float()
        if self._token_ids is None:
            return logits
        return self._logits[: len(logits)].index_copy_(-1, self._token_ids, logits)


def _known(sequence: Sequence) -> int:
    """How many of its positions the target has read: all but the newest token's."""
    return len(sequence.tokens) - 1
