"""The target model, ready to serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from aurora_inference.native.runner.cache import CachedAttention, KeyValueCache
from aurora_inference.native.runner.device import Device
from aurora_model.decoder import Decoder
from aurora_model.device import OutOfMemoryError
from aurora_model.folder import ModelFolder
from aurora_model.target import TargetIdentity, target_identity
from aurora_model.weights import load_decoder

# Libraries multiply fewer rows, or queries for a key, in other ways, which round differently.
_LEAST_ROWS, _LEAST_QUERIES = 2, 4


class Output(NamedTuple):
    """What a pass gave; `states`: by layer, those that entered it, for the layers asked for."""

    logits: Tensor  # [n, T, V] float32
    states: Mapping[int, Tensor]  # [n, T, hidden], in the target's dtype


class Target:
    """A decoder in the dtype the user chose, tuned for its device."""

    def __init__(
        self,
        decoder: Decoder,
        identity: TargetIdentity,
        *,
        stop_tokens: frozenset[int],
        device: Device,
    ) -> None:
        self.identity = identity
        self.stop_tokens = stop_tokens
        self.device = device
        self.decoder = decoder.eval()
        self.dtype = next(decoder.parameters()).dtype
        queries = decoder.config.num_heads // decoder.config.num_kv_heads  # of a token, for a key
        self._least_width = max(_LEAST_ROWS, -(-_LEAST_QUERIES // queries))
        device.tune_target(decoder)

    @classmethod
    def load(cls, model: ModelFolder, *, dtype: torch.dtype, device: Device) -> Self:
        """Loads the weights of a Hugging Face folder; raises AuroraError."""
        return cls(
            load_decoder(model.path, dtype=dtype, device=device.name, config=model.config),
            target_identity(model.path),
            stop_tokens=model.stop_token_ids,
            device=device,
        )

    def new_cache(self, *, rows: int, capacity: int) -> KeyValueCache:
        """A cache for `rows` sequences of at most `capacity` tokens."""
        return KeyValueCache(
            self.decoder.config,
            rows=rows,
            capacity=capacity + self._least_width,
            dtype=self.dtype,
            device=self.device.name,
        )

    def rows_within(self, rows: int, *, capacity: int, memory_percent: int) -> int:
        """How many of `rows` fit into the device's memory, of which `memory_percent` may be in use.

        Raises OutOfMemoryError if none does, saying how many tokens would.
        """
        free = self.device.free_bytes(memory_percent)
        if free is None:
            return rows
        whole = capacity + self._least_width
        needed = KeyValueCache.row_bytes(self.decoder.config, capacity=whole, dtype=self.dtype)
        if needed > free:
            raise OutOfMemoryError(
                f"a cache for one request of {capacity} tokens takes {needed / 2**30:.2f} GiB, and "
                f"{memory_percent}% of {self.device.description} leaves "
                f"{max(free, 0) / 2**30:.2f} GiB beside the weights: allow fewer tokens "
                "(--max-context-tokens), more memory (--gpu-memory-percent) or a larger GPU"
            )
        return min(rows, free // needed)

    def decode(
        self,
        tokens: Tensor,
        cache: KeyValueCache,
        starts: list[int],
        *,
        batch_invariant: bool,
        layers: Sequence[int] = (),
    ) -> Output:
        """Feeds tokens [n, T] to the first n rows; the output has logits after each of them.

        `starts` are the rows' lengths. `batch_invariant`: in float32 a row's logits are the same to
        the last bit whatever n, T and the other rows, given batch-invariant linear layers; a small
        batch, or one of short rows, takes a little longer. In bfloat16 they mostly are: a product
        of more than 32 rows may round differently. `layers`: ascending, as `Decoder.states` has
        them.
        """
        width = tokens.shape[1]
        if batch_invariant and width < self._least_width:
            tokens = functional.pad(tokens, (0, self._least_width - width))
        attend = CachedAttention(
            cache,
            first_row=0,
            starts=starts,
            count=tokens.shape[1],
            whole_blocks=batch_invariant,
        )
        hidden, entering = self.decoder.states(tokens, attend.positions, attend, layers)
        return Output(
            self.decoder.logits(hidden).float()[:, :width],
            {layer: each[:, :width] for layer, each in zip(layers, entering, strict=True)},
        )

    def prefill(
        self, tokens: Sequence[int], attend: CachedAttention, layers: Sequence[int] = ()
    ) -> Output:
        """Feeds a piece of a prompt of T tokens; logits [1, 1, V] only after its last token."""
        fed = torch.tensor([tokens], device=self.device.name)
        with self.device.prefilling(len(tokens)):
            hidden, entering = self.decoder.states(fed, attend.positions, attend, layers)
        return Output(
            self.decoder.logits(hidden[:, -1:]).float(),
            dict(zip(layers, entering, strict=True)),
        )
