"""The drafter of requests without a draft: what followed their last tokens before."""

from __future__ import annotations

import torch
from torch import Tensor

from aurora_inference.native.runner.drafter import Proposal, WithoutStates
from aurora_inference.native.runner.sampler import Sampler
from aurora_inference.native.sequence import Sequence


class NgramDrafter(WithoutStates):
    """Proposes the continuation of the longest match in each sequence's own `history`.

    It has no checkpoint, thus no digest, and is in no slot. A proposal is certain: its
    distributions have all their mass on its tokens. Those of a sequence without a match are not
    proposals: its length must be 0.
    """

    name = "ngram"
    digest = ""

    def __init__(self, vocabulary: int, device: str) -> None:
        self.sequences: list[Sequence] = []
        self._vocabulary = vocabulary
        self._device = device

    def add(self, sequence: Sequence) -> None:
        self.sequences.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        if sequence in self.sequences:
            self.sequences.remove(sequence)

    def propose(self, count: int, sampler: Sampler) -> Proposal:
        rows = [_continuation(sequence, count) for sequence in self.sequences]
        tokens = torch.tensor(rows, device=self._device)
        return Proposal(tokens, None if sampler.uniforms is None else self._certain(tokens))

    def _certain(self, tokens: Tensor) -> Tensor:
        probs = torch.zeros(*tokens.shape, self._vocabulary, device=self._device)
        return probs.scatter_(-1, tokens.unsqueeze(-1), 1.0)


def _continuation(sequence: Sequence, count: int) -> list[int]:
    found = sequence.history.continuation(count) if sequence.history else []
    return found or [0] * count
