"""From logits to the distribution that a request's sampling parameters define."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Rows
from functools import lru_cache, partial

import torch
from torch import Tensor

from aurora_inference.contract import Sampling
from aurora_inference.native.sequence import Sequence

# Covers almost every nucleus; a wider one falls back to a full sort.
_NUCLEUS_TOKENS = 128
_RECENT_BATCHES = 128


class SamplingRows:
    """The sampling parameters of a batch's rows, as tensors [B, 1, 1]."""

    def __init__(self, rows: Rows[Sampling], device: str) -> None:
        self.device = device
        sampled = [index for index, row in enumerate(rows) if row.temperature > 0]
        # The rows whose tokens their seed determines, and those that only chance does.
        self.seeded = [index for index in sampled if rows[index].seed is not None]
        self.undetermined = [index for index in sampled if rows[index].seed is None]
        self._some_greedy = any(row.temperature == 0 for row in rows)
        self._top_k = [row.top_k for row in rows]
        self._truncates_top_p = any(row.top_p < 1 for row in rows)

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device).view(-1, 1, 1)

        self._temperature = column([row.temperature or 1.0 for row in rows])
        self._is_greedy = column([float(row.temperature == 0) for row in rows]) > 0
        self._top_p = column([row.top_p for row in rows])

    def probs(self, logits: Tensor) -> Tensor:
        """[B, T, V] float32 logits -> probabilities after temperature, top-k, top-p.

        A greedy row has all its mass on the argmax. Truncation keeps ties of the last kept token.
        A row's result is the same to the last bit whatever the other rows.
        """
        scaled = logits / self._temperature
        if any(self._top_k):
            scaled = self._truncated_to_top_k(scaled)
        probs = scaled.softmax(dim=-1)
        if self._truncates_top_p:
            probs = _truncated_to_nucleus(probs, self._top_p)
        if self._some_greedy:
            one_hot = torch.zeros_like(probs).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
            probs = torch.where(self._is_greedy, one_hot, probs)
        return probs

    def _truncated_to_top_k(self, logits: Tensor) -> Tensor:
        vocabulary = logits.shape[-1]
        counts = [min(k, vocabulary) if k > 0 else vocabulary for k in self._top_k]
        widest = max((k for k in counts if k < vocabulary), default=0)
        if widest == 0:
            return logits
        top = logits.topk(widest, dim=-1).values  # [B, T, widest]
        index = torch.tensor([min(k, widest) - 1 for k in counts], device=logits.device)
        lowest = top.gather(-1, index.view(-1, 1, 1).expand(-1, top.shape[1], 1))
        open_rows = torch.tensor([k == vocabulary for k in counts], device=logits.device)
        lowest = lowest.masked_fill(open_rows.view(-1, 1, 1), float("-inf"))
        return logits.masked_fill(logits < lowest, float("-inf"))


class BatchSampling:
    """Builds the `SamplingRows` of batches and keeps those of recent ones.

    The same rows often come back: a batch changes less often than it steps.
    """

    def __init__(self, device: str) -> None:
        self._recent = lru_cache(maxsize=_RECENT_BATCHES)(partial(SamplingRows, device=device))

    def rows(self, sequences: Iterable[Sequence]) -> SamplingRows:
        return self._recent(tuple(sequence.request.sampling for sequence in sequences))


def _truncated_to_nucleus(probs: Tensor, top_p: Tensor) -> Tensor:
    """Keeps the smallest set of most probable tokens whose mass reaches top_p (Holtzman 2020)."""
    vocabulary = probs.shape[-1]
    width = min(_NUCLEUS_TOKENS, vocabulary)
    top = probs.topk(width, dim=-1).values
    if width < vocabulary and bool(((top.sum(dim=-1, keepdim=True) < top_p) & (top_p < 1)).any()):
        top = probs.sort(dim=-1, descending=True).values
    before = top.cumsum(dim=-1) - top
    # The last token whose predecessors hold less than top_p; at least the first.
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    lowest = top.gather(-1, last.clamp_min(0)).masked_fill(top_p >= 1, 0.0)
    kept = torch.where(probs >= lowest, probs, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True).masked_fill(top_p >= 1, 1.0)
