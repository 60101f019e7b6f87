"""The interface of a draft kind: its module, files, random start and loss inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from aurora_common.errors import CheckpointError
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder
from aurora_model.target import TargetIdentity


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


class Predictions(NamedTuple):
    """R predictions of a batch's rows, by ascending row.

    features [R, ...], for `logits`; rows int64 [R]: which of the M rows is predicted; steps int64
    [R]: how many tokens of the same proposal come before it.
    """

    features: Tensor
    rows: Tensor
    steps: Tensor


class Draft(nn.Module, ABC):
    """A draft of one kind. Subclasses are listed in the registry under `kind`.

    `kind` is also what `aurora.json` calls it. Training asks for `unrolled` once per batch and for
    `logits` a chunk of rows at a time, so that they need not fit into memory all at once.

    `needs_target`: whether it computes from the target's hidden states, and so only beside it.
    """

    kind: ClassVar[str]
    needs_target: ClassVar[bool] = False
    config: DraftConfig

    @classmethod
    def describes(cls, folder: Path) -> bool:
        """Whether a published model folder is certainly meant to be one of this kind.

        Raises AuroraErrors if it cannot be read.
        """
        return False

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

    def check(self, target: TargetIdentity) -> None:
        """Raises CheckpointError naming what does not fit this target."""
        if self.config.vocab_size > target.vocab_size:
            raise CheckpointError(
                f"its vocabulary has {self.config.vocab_size} tokens, the target's "
                f"{target.vocab_size}"
            )

    def attach(self, target: Decoder) -> None:
        """Gives it its target, for kinds that use tensors of it."""

    def target_layers(self, target: DecoderConfig) -> tuple[int, ...]:
        """Which hidden states of the target it needs, as `Decoder.states` counts them."""
        return ()

    @property
    def token_ids(self) -> Tensor | None:
        """Which token each column of the logits stands for, int64 [V]; None: that of its number."""
        return None

    @abstractmethod
    def features(self, batch: PackedTokens, target_hidden: Tensor | None = None) -> Tensor:
        """What `logits` needs at the predicting positions: [M, ...].

        target_hidden: the target's hidden states side by side, [1, N, ...], for kinds that need
        them.
        """

    def unrolled(
        self, batch: PackedTokens, target_hidden: Tensor | None = None, *, steps: int
    ) -> Predictions:
        """Each row as the first to the last of `steps` tokens of a proposal; arguments as above.

        Kinds that predict a token alike wherever its proposal began do so once.
        """
        rows = torch.arange(len(batch.rows), device=batch.rows.device)
        return Predictions(self.features(batch, target_hidden), rows, torch.zeros_like(rows))

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """features [m, ...] -> [m, V]; V may be less than the target's, never more."""

    @property
    def output_weight(self) -> Tensor | None:
        """[V, D], if all that `logits` does is to multiply features [m, D] with its transpose."""
        return None

    @abstractmethod
    def multiplications(self, *, tokens: int, predictions: int) -> float:
        """Roughly what a forward pass costs, of which `predictions` positions need logits."""
