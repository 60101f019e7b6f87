"""The target model, ready to serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from aurora_inference.native.runner.cache import CachedAttention
from aurora_inference.native.runner.device import Device
from aurora_model.decoder import Decoder
from aurora_model.folder import ModelFolder
from aurora_model.target import TargetIdentity, target_identity
from aurora_model.weights import load_decoder


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

    def logits(self, tokens: Tensor, attend: CachedAttention) -> Tensor:
        """[n, T] int64 -> [n, T, V] float32."""
        return self.decoder.logits(self.decoder(tokens, attend.positions, attend)).float()

    def prefill(self, tokens: Sequence[int], attend: CachedAttention) -> Tensor:
        """Feeds a piece of a prompt; returns the logits [1, V] float32 after its last token."""
        fed = torch.tensor([tokens], device=self.device.name)
        with self.device.prefilling(len(tokens)):
            hidden = self.decoder(fed, attend.positions, attend)
        return self.decoder.logits(hidden[:, -1]).float()
