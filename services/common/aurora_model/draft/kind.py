"""The interface of a draft kind: its module, files, random start and loss inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from aurora_common.errors import CheckpointError
from aurora_model.config import DecoderConfig


class DraftConfig(Protocol):
    """What every kind's config says of a draft's size; comparable by value."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def num_layers(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """N tokens of several sequences end to end, M of them predicting a token that counts.

    tokens, positions: int64 [1, N]; lengths: of each sequence, together N; rows: int64 [M], where
    in N the predicting positions are.
    """

    tokens: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    rows: Tensor


class Draft(nn.Module, ABC):
    """A draft of one kind. Subclasses are listed in the registry under `kind`.

    `kind` is also what `aurora.json` calls it. Training asks for `features` once per batch and for
    `logits` a chunk of rows at a time, so that they need not fit into memory all at once.
    """

    kind: ClassVar[str]
    config: DraftConfig

    @classmethod
    @abstractmethod
    def read_config(cls, folder: Path) -> DraftConfig:
        """The config of a checkpoint; raises InvalidInputError if missing or unsupported."""

    @classmethod
    @abstractmethod
    def parse_config(cls, content: Mapping[str, Any], *, source: str) -> DraftConfig:
        """The config with this `config_content`; raises InvalidInputError naming `source`."""

    @classmethod
    @abstractmethod
    def build(cls, config: DraftConfig) -> Draft:
        """A draft of this kind's config whose weights are yet to be loaded."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, *, dtype: torch.dtype, device: str) -> Draft:
        """Reads config and weights; raises InvalidInputError or CheckpointError if unfit."""

    @classmethod
    @abstractmethod
    def random(cls, target: DecoderConfig, seed: int) -> Draft:
        """The float32 draft that training starts from on day 0: the same for the same seed."""

    @abstractmethod
    def config_content(self) -> dict[str, Any]:
        """The config as JSON values, for `parse_config`."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes config and weights; raises StorageError if a write fails."""

    def narrow(self, vocab_size: int) -> None:
        """Drops the token ids from `vocab_size` on, which are padding that the target lacks.

        Raises CheckpointError if this kind cannot.
        """
        raise CheckpointError(
            f"its vocabulary has {self.config.vocab_size} tokens: allowed is at most the target's, "
            f"{vocab_size}"
        )

    @abstractmethod
    def features(self, batch: PackedTokens, target_hidden: Tensor | None = None) -> Tensor:
        """What `logits` needs at the predicting positions: [M, ...].

        target_hidden: the target's hidden states [1, N, ...], for kinds that condition on them.
        """

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """features [m, ...] -> [m, V]; V may be less than the target's, never more."""

    @abstractmethod
    def multiplications(self, *, tokens: int, predictions: int) -> float:
        """Roughly what a forward pass costs, of which `predictions` positions need logits."""
