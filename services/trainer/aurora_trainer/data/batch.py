"""Packs samples end to end into one row of tokens, without padding.

Lengths vary several-fold in real traffic: padded to the longest, half of a batch would be padding.
Only attention needs to know where a sequence ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aurora_model.device import CPU
from aurora_model.draft import PackedTokens
from aurora_trainer.data.sample import Sample

# How many logits are computed at a time.
_LOGITS_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Batch(PackedTokens):
    """Packed tokens and the target's distribution at each of the M predicting positions.

    top_ids int64 [M, k]; log_probs float32 [M, k] and tail_mass float32 [M] sum to 1 in each row.
    """

    top_ids: Tensor
    log_probs: Tensor
    tail_mass: Tensor


def packed_tokens(samples: Sequence[Sample], device: torch.device = CPU) -> PackedTokens:
    """One or more samples end to end, without what the target thinks of them."""
    # The last token predicts nothing with a target, so it is not fed.
    lengths = [len(sample.tokens) - 1 for sample in samples]
    ends = np.cumsum(lengths)
    rows = [
        np.arange(end - sample.output_count, end) for sample, end in zip(samples, ends, strict=True)
    ]
    return PackedTokens(
        tokens=_row([sample.tokens[:-1] for sample in samples]).to(device),
        positions=sequence_positions(lengths).to(device),
        lengths=tuple(lengths),
        rows=torch.from_numpy(np.concatenate(rows)).to(device),
    )


def pack(
    samples: Sequence[Sample], *, entries: int | None = None, device: torch.device = CPU
) -> Batch:
    """Packs one or more samples.

    `entries`: the k of every row, by default and at most the smallest among the samples; entries
    beyond it move to the tail.
    """
    packed = packed_tokens(samples, device)
    if entries is None:
        entries = smallest_entries(samples)
    top_ids = np.concatenate([sample.top_ids[:, :entries] for sample in samples])
    log_probs = torch.from_numpy(
        np.concatenate([sample.log_probs[:, :entries] for sample in samples])
    ).float()
    tail_mass = torch.from_numpy(
        np.concatenate([_tail_mass(sample, entries) for sample in samples])
    )
    # float16 leaves a row's sum slightly off 1.
    total = log_probs.exp().sum(dim=-1) + tail_mass
    return Batch(
        tokens=packed.tokens,
        positions=packed.positions,
        lengths=packed.lengths,
        rows=packed.rows,
        top_ids=torch.from_numpy(top_ids).long().to(device),
        log_probs=(log_probs - total.log().unsqueeze(-1)).to(device),
        tail_mass=(tail_mass / total).to(device),
    )


def row_chunks(rows: int, vocab_size: int) -> Iterator[slice]:
    """Rows whose logits are in memory together: they stay in the cache, and a vocabulary of 150,000
    does not cost gigabytes."""
    return slices(rows, max(64, _LOGITS_CHUNK // vocab_size))


def slices(rows: int, size: int) -> Iterator[slice]:
    """So many rows at a time."""
    return (slice(start, start + size) for start in range(0, rows, size))


def smallest_entries(samples: Sequence[Sample]) -> int:
    """The largest k that every row of these samples has."""
    return min(int(sample.top_ids.shape[1]) for sample in samples)


def sequence_positions(lengths: Sequence[int]) -> Tensor:
    """int64 [1, N]: each sequence counts from 0."""
    return _row([np.arange(length) for length in lengths])


def _tail_mass(sample: Sample, entries: int) -> NDArray[np.float32]:
    beyond = np.exp(sample.log_probs[:, entries:].astype(np.float32)).sum(axis=1)
    return np.asarray(sample.tail_mass + beyond, np.float32)


def _row(parts: Sequence[NDArray[np.integer]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).long().unsqueeze(0)
