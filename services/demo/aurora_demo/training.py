"""Training of the demo's models: batches, losses, and one loop for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from aurora_model.decoder import Decoder

_BETAS = (0.9, 0.95)
_WEIGHT_DECAY = 0.01
_GRADIENT_NORM = 1.0


class Progress(Protocol):
    """Displays the progress of training."""

    def stage(self, title: str) -> None: ...

    def advance(self, work: float) -> None:
        """Adds to the work done."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Draws windows of `length` tokens, plus one more to predict, from token streams."""

    streams: Sequence[Tensor]
    counts: Sequence[int]
    length: int
    generator: torch.Generator

    def draw(self) -> Tensor:
        """counts[i] windows of streams[i], int64 [sum(counts), length + 1]."""
        offsets = torch.arange(self.length + 1)
        return torch.cat(
            [
                stream[self._starts(len(stream), count).unsqueeze(1) + offsets]
                for stream, count in zip(self.streams, self.counts, strict=True)
            ]
        )

    def _starts(self, tokens: int, count: int) -> Tensor:
        return torch.randint(tokens - self.length, (count,), generator=self.generator)


@cache
def fastest_dtype() -> torch.dtype:
    """bfloat16 if this processor multiplies it faster than float32, else float32.

    With AVX-512's or AMX's bfloat16 instructions it is four times as fast, without them as much
    slower, so a hundredth of a second of measurement suffices.
    """

    def seconds(dtype: torch.dtype) -> float:
        rows, weight = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        F.linear(rows, weight)
        started = time.perf_counter()
        F.linear(rows, weight)
        return time.perf_counter() - started

    best = {d: min(seconds(d) for _ in range(3)) for d in (torch.bfloat16, torch.float32)}
    return min(best, key=best.__getitem__)


def whole_logits(decoder: Decoder, tokens: Tensor) -> Tensor:
    """tokens int64 [B, T] -> float32 [B, T, V], with products in the fastest precision."""
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    dtype = fastest_dtype()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        logits = decoder.logits(decoder(tokens, positions, attend_by_products))
    return logits.float()


def attend_by_products(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of whole sequences, [B, H, T, D], as two matrix products and a softmax.

    On a CPU, for a hundred tokens in bfloat16, forward and backward take a third of the time of
    torch's fused attention.
    """
    batch, heads, length, width = query.shape
    kv_heads = key.shape[1]
    # Queries that share a key head are stacked, so that no key is repeated.
    grouped = (query * width**-0.5).reshape(batch, kv_heads, -1, width).to(value.dtype)
    scores = grouped @ key.to(value.dtype).transpose(-1, -2)  # [B, Hkv, H / Hkv * T, T]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = (
        scores.view(batch, kv_heads, -1, length, length)
        .masked_fill(future, -torch.inf)
        .softmax(dim=-1)
        .view_as(scores)
    )
    attended: Tensor = weights.to(value.dtype) @ value
    return attended.view(batch, heads, length, width)


def train(
    decoder: Decoder,
    loss: Callable[[], Tensor],
    rates: Sequence[float],
    on_step: Callable[[], None],
) -> None:
    """One AdamW step on the scalar `loss()` for each rate."""
    parameters = list(decoder.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=0.0, betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True
    )
    decoder.train()
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss().backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        torch.nn.utils.clip_grad_norm_(parameters, _GRADIENT_NORM, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_step()
    decoder.eval()


def next_token_loss(decoder: Decoder, windows: Tensor) -> Tensor:
    """Mean cross entropy of each token given those before it; windows int64 [B, T + 1]."""
    logits = whole_logits(decoder, windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def distillation_loss(draft: Decoder, target: Decoder, windows: Tensor) -> Tensor:
    """Mean cross entropy of the target's distributions under the draft's; windows as above."""
    with torch.no_grad():
        teaching = whole_logits(target, windows[:, :-1]).softmax(dim=-1)
    logits = whole_logits(draft, windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), teaching.flatten(0, 1))
