"""Keys and values of the sequences in flight, one dense row each.

Rows never realign: each has its own length, a step writes after it, and a rejected draft is rolled
back by not advancing the length. Entries beyond a row's length are stale and always masked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aurora_model.config import DecoderConfig

# Libraries sum whole blocks of this many positions in one order, and what is left in others.
_BLOCK_TOKENS = 64


class KeyValueCache:
    """Room for `rows` sequences of at least `capacity` tokens: [rows, kv heads, room, head dim]."""

    def __init__(
        self, config: DecoderConfig, *, rows: int, capacity: int, dtype: torch.dtype, device: str
    ) -> None:
        shape = (rows, config.num_kv_heads, _whole_blocks(capacity), config.head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in _layers(config)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in _layers(config)]

    @staticmethod
    def row_bytes(config: DecoderConfig, *, capacity: int, dtype: torch.dtype) -> int:
        """What a row takes."""
        values = config.num_layers * config.num_kv_heads * config.head_dim
        return 2 * values * _whole_blocks(capacity) * dtype.itemsize

    def move(self, source: int, destination: int, length: int) -> None:
        """Copies a row's first `length` tokens to another row."""
        for cache in (*self.keys, *self.values):
            cache[destination, :, :length].copy_(cache[source, :, :length])


def _whole_blocks(tokens: int) -> int:
    return -(-tokens // _BLOCK_TOKENS) * _BLOCK_TOKENS


def _layers(config: DecoderConfig) -> range:
    return range(config.num_layers)


class CachedAttention:
    """Attention of T new tokens in each of n adjacent rows over everything those rows hold.

    Token t of row `first_row + i` is written at `starts[i] + t` and sees the positions up to its
    own; `starts` are the rows' lengths before the step. `whole_blocks`: over whole blocks of
    positions, so that how long the other rows are does not change the last bits of a row's result.
    """

    def __init__(
        self,
        cache: KeyValueCache,
        *,
        first_row: int,
        starts: list[int],
        count: int,
        whole_blocks: bool = False,
    ) -> None:
        device = cache.keys[0].device
        self._cache = cache
        self._first = first_row
        self._starts = starts
        self._count = count
        self._span = max(starts) + count
        if whole_blocks:
            self._span = _whole_blocks(self._span)
        # [n, T]: the position of each new token.
        self.positions = torch.tensor(starts, device=device).unsqueeze(1) + torch.arange(
            count, device=device
        )
        self._rows = torch.arange(first_row, first_row + len(starts), device=device).unsqueeze(1)
        self._mask: Tensor | None = None

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [n, H, T, D], key and value [n, Hkv, T, D] -> [n, H, T, D]."""
        rows, heads, count, width = query.shape
        kv_heads = key.shape[1]
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        self._write(keys, key)
        self._write(values, value)
        last = self._first + rows
        # Heads that share a key are folded into the token dimension, which avoids repeating keys.
        folded = query.reshape(rows, kv_heads, heads // kv_heads * count, width)
        attended = F.scaled_dot_product_attention(
            folded,
            keys[self._first : last, :, : self._span],
            values[self._first : last, :, : self._span],
            attn_mask=self._visible(heads // kv_heads, query.dtype),
        )
        return attended.reshape(rows, heads, count, width)

    def _write(self, cache: Tensor, new: Tensor) -> None:
        if len(self._starts) == 1:
            start = self._starts[0]
            cache[self._first, :, start : start + self._count] = new[0]
        else:
            cache[self._rows, :, self.positions] = new.transpose(1, 2).to(cache.dtype)

    def _visible(self, group: int, dtype: torch.dtype) -> Tensor | None:
        """Additive mask [n, 1, group * T, span]; None if every position is visible."""
        if len(self._starts) == 1 and self._span == self._starts[0] + 1:
            return None
        if self._mask is None:
            columns = torch.arange(self._span, device=self.positions.device)
            hidden = columns > self.positions.unsqueeze(-1)  # [n, T, span]
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            mask.masked_fill_(hidden, float("-inf"))
            self._mask = mask.unsqueeze(1).repeat(1, 1, group, 1)
        return self._mask
