"""From logits to the distribution that a request's sampling parameters define."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from aurora_kernels.rejection import gumbel_argmax

# Covers almost every nucleus; a wider one falls back to a full sort.
_NUCLEUS_TOKENS = 128


class Sampling(Protocol):
    """How a request's tokens are drawn; temperature 0 is greedy, top_k 0 and top_p 1 are off."""

    @property
    def temperature(self) -> float: ...

    @property
    def top_k(self) -> int: ...

    @property
    def top_p(self) -> float: ...

    @property
    def seed(self) -> int | None: ...


class Columns(NamedTuple):
    """The parameters of B rows as a kernel reads them, each [B]."""

    temperature: Tensor  # float32, 0 if greedy
    top_k: Tensor  # int32, 0 if off
    top_p: Tensor  # float32
    noise: Tensor  # int32: which of the rows with a seed it is, -1 if none


class SamplingRows:
    """The sampling parameters of a batch's rows.

    A row is *determined* if it is greedy or has a seed: the target says one token at a position,
    the argmax of its distribution or, with a seed, of the distribution and that position's noise.
    """

    def __init__(self, rows: Sequence[Sampling], device: str) -> None:
        self.device = device
        self._parameters = tuple(rows)
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

    @cached_property
    def columns(self) -> Columns:
        """The parameters for a kernel."""
        rows, places = self._parameters, {row: place for place, row in enumerate(self.seeded)}

        def column(values: list[float] | list[int], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=self.device)

        return Columns(
            column([row.temperature for row in rows], torch.float32),
            column([row.top_k for row in rows], torch.int32),
            column([row.top_p for row in rows], torch.float32),
            column([places.get(row, -1) for row in range(len(rows))], torch.int32),
        )

    def tokens(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """[B, T] int64: the tokens of a batch whose rows are all determined.

        logits [B, T, V]; noise [S, T, V]: that of the rows with a seed, None if there are none.
        """
        if noise is None:
            return logits.argmax(dim=-1)
        probs = self.probs(logits)
        tokens = probs.argmax(dim=-1)
        tokens[self.seeded] = gumbel_argmax(probs[self.seeded], noise)
        return tokens

    def drawn_from(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """[B, T, V]: what each token is drawn from, one-hot where a row is determined."""
        probs = self.probs(logits)
        if noise is not None:
            tokens = gumbel_argmax(probs[self.seeded], noise).unsqueeze(-1)
            one_hot = torch.zeros(*tokens.shape[:2], probs.shape[-1], device=probs.device)
            probs[self.seeded] = one_hot.scatter_(-1, tokens, 1.0)
        return probs

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


def _truncated_to_nucleus(probs: Tensor, top_p: Tensor) -> Tensor:
    """Keeps the smallest set of most probable tokens whose mass reaches top_p (Holtzman 2020)."""
    vocabulary = probs.shape[-1]
    width = min(_NUCLEUS_TOKENS, vocabulary)
    top = probs.topk(width, dim=-1).values
    if width < vocabulary and _may_be_wider(top, top_p):
        top = probs.sort(dim=-1, descending=True).values
    before = top.cumsum(dim=-1) - top
    # The last token whose predecessors hold less than top_p; at least the first.
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    lowest = top.gather(-1, last.clamp_min(0)).masked_fill(top_p >= 1, 0.0)
    kept = torch.where(probs >= lowest, probs, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True).masked_fill(top_p >= 1, 1.0)


def _may_be_wider(top: Tensor, top_p: Tensor) -> bool:
    """Whether a nucleus may not lie within these most probable tokens."""
    # A GPU sorts in less time than it takes to ask it.
    return top.device.type != "cpu" or bool(
        ((top.sum(dim=-1, keepdim=True) < top_p) & (top_p < 1)).any()
    )
