"""The identity of a target, which its drafts must match."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aurora_common.checkpoint import file_digest, folder_digest
from aurora_common.errors import InvalidInputError
from aurora_model.config import read_config
from aurora_model.tokenizer import TOKENIZER


@dataclass(frozen=True, slots=True)
class TargetIdentity:
    """Identifies a target by content; digests are `sha256:<hex>`."""

    digest: str
    tokenizer_digest: str
    vocab_size: int


def target_identity(folder: Path) -> TargetIdentity:
    """Reads every file of a target once.

    Raises InvalidInputError if the config is not supported or a file cannot be read.
    """
    config = read_config(folder)
    try:
        return TargetIdentity(
            digest=folder_digest(folder),
            tokenizer_digest=f"sha256:{file_digest(folder / TOKENIZER)}",
            vocab_size=config.vocab_size,
        )
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the target in {folder}: {error.filename}: {error.strerror}"
        ) from error
