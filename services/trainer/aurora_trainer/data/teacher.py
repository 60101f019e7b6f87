"""The target beside the trainer: what it computes for recorded tokens, by teacher forcing.

One forward pass over a trajectory gives the hidden states that some drafts read, and those from
which every distribution over the whole vocabulary follows. Nothing of it is ever recorded.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aurora_model.decoder import Decoder, causal_attend
from aurora_model.device import memory_for
from aurora_model.draft import PackedTokens
from aurora_model.weights import load_decoder
from aurora_trainer.data.batch import packed_tokens, row_chunks
from aurora_trainer.data.sample import Sample

logger = logging.getLogger(__name__)

_CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class TaughtBatch(PackedTokens):
    """Packed tokens beside the target.

    hidden float32 [1, N, layers × hidden], the states that the draft reads side by side; final
    float32 [M, hidden]: those that give the distributions of the predicting positions.
    """

    hidden: Tensor
    final: Tensor
    target: Decoder

    @torch.no_grad()
    def log_probs(self, rows: Tensor, token_ids: Tensor | None) -> Tensor:
        """The target's log-probabilities at some of the M rows, [m, V], or only those of
        `token_ids`, which then do not sum to 1."""
        found = self.target.logits(self.final[rows]).float().log_softmax(dim=-1)
        return found if token_ids is None else found[:, token_ids]


def held_target(folder: Path, device: torch.device) -> Decoder:
    """The target in this process, in float32 as drafts are trained, without gradients."""
    logger.info("loading the target, to compute what it thinks of recorded tokens")
    with memory_for("the weights of the target in float32"):
        decoder = load_decoder(folder, dtype=torch.float32, device=str(device))
    return decoder.requires_grad_(requires_grad=False).eval()


class Teacher:
    """Holds the target, and the states of the trajectories used last.

    A trajectory is passed alone, so that what it gives does not depend on its neighbours: training
    goes on exactly the same after a restart. Belongs to one thread.
    """

    def __init__(
        self, target: Decoder, layers: Sequence[int], *, cache_bytes: int = _CACHE_BYTES
    ) -> None:
        """`target`: float32, without gradients. `layers`: as `Decoder.states` counts them."""
        self._target = target
        self._device = target.norm.weight.device
        self._layers = tuple(layers)
        self._limit_bytes = cache_bytes
        self._cached: OrderedDict[str, Tensor] = OrderedDict()
        self.cached_bytes = 0

    def pack(self, samples: Sequence[Sample]) -> TaughtBatch:
        """One or more samples with the target's states."""
        packed = packed_tokens(samples, self._device)
        states = torch.cat([self._states(sample) for sample in samples])
        final_size = self._target.config.hidden_size
        return TaughtBatch(
            tokens=packed.tokens,
            positions=packed.positions,
            lengths=packed.lengths,
            rows=packed.rows,
            hidden=states[None, :, :-final_size],
            final=states[packed.rows, -final_size:],
            target=self._target,
        )

    def recorded(self, sample: Sample, entries: int) -> Sample:
        """The sample with the distributions that an engine would have recorded with it."""
        batch = self.pack([sample])
        size = self._target.config.vocab_size
        index = torch.arange(len(batch.rows), device=self._device)
        ids, log_probs = [], []
        for rows in row_chunks(len(batch.rows), size):
            found = batch.log_probs(index[rows], None)
            top = found.topk(min(entries, size), dim=-1)
            ids.append(top.indices)
            log_probs.append(top.values)
        kept = torch.cat(log_probs).cpu()
        return replace(
            sample,
            top_ids=torch.cat(ids).cpu().numpy().astype(np.int32),
            log_probs=kept.numpy().astype(np.float16),
            tail_mass=(1 - kept.exp().sum(dim=-1)).clamp_min(0).numpy().astype(np.float16),
        )

    @torch.no_grad()
    def _states(self, sample: Sample) -> Tensor:
        """[P + T - 1, (layers + 1) × hidden], the final ones last."""
        found = self._cached.pop(sample.stream_id, None)
        if found is None:
            tokens = torch.from_numpy(sample.tokens[:-1]).long()[None].to(self._device)
            positions = torch.arange(tokens.shape[1], device=self._device)[None]
            final, entering = self._target.states(tokens, positions, causal_attend, self._layers)
            found = torch.cat((*entering, final), dim=-1)[0]
            self.cached_bytes += found.nbytes
        self._cached[sample.stream_id] = found
        while self.cached_bytes > self._limit_bytes:
            _, dropped = self._cached.popitem(last=False)
            self.cached_bytes -= dropped.nbytes
        return found
