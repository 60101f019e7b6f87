"""The checkpoints in the models folder, which itself is the record of what was published."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from aurora_common.checkpoint import read_manifest
from aurora_common.errors import CheckpointError
from aurora_common.store.published import PublishedDraft, checkpoint_folders

logger = logging.getLogger(__name__)

_UNFINISHED = ".ckpt-*.partial"


def checkpoint_name(sequence: int) -> str:
    """What aurora.json calls the checkpoint."""
    return f"ckpt-{sequence}"


def newest_sequence(models: Path) -> int:
    """The highest sequence that was ever used in this folder and is still there; 0 for none.

    By name alone: even a checkpoint that cannot be read has used its number.
    """
    return max((sequence for sequence, _ in checkpoint_folders(models)), default=0)


def published_after(models: Path, sequence: int) -> list[PublishedDraft]:
    """The checkpoints with a higher sequence, in order, but for those without a sound manifest."""
    found = []
    for number, folder in sorted(checkpoint_folders(models)):
        if number <= sequence:
            continue
        try:
            found.append(PublishedDraft(number, folder, read_manifest(folder)))
        except CheckpointError as error:
            # The operator may be deleting it just now.
            logger.warning("checkpoint left out", extra={"fields": {"reason": str(error)}})
    return found


def discard_unfinished(models: Path) -> None:
    """Removes what a killed trainer left half-written; call before anything is published."""
    for folder in models.glob(_UNFINISHED):
        shutil.rmtree(folder, ignore_errors=True)
