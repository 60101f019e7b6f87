"""The target model, ready to serve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from aurora_common.errors import InvalidInputError
from aurora_inference.native.runner.cache import CachedAttention
from aurora_inference.native.runner.device import Device
from aurora_model.decoder import Decoder
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
    def load(cls, folder: Path, *, dtype: torch.dtype, device: Device) -> Self:
        """Loads a Hugging Face folder; raises AuroraError."""
        decoder = load_decoder(folder, dtype=dtype, device=device.name)
        return cls(
            decoder,
            target_identity(folder),
            stop_tokens=frozenset(decoder.config.eos_token_ids) | _generation_stops(folder),
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


def _generation_stops(folder: Path) -> frozenset[int]:
    """Stop ids of generation_config.json, where chat models list more than in config.json."""
    path = folder / "generation_config.json"
    if not path.exists():
        return frozenset()
    try:
        listed = json.loads(path.read_bytes()).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"{path} is not a JSON object: {error}") from error
    return frozenset(listed if isinstance(listed, list) else [] if listed is None else [listed])
