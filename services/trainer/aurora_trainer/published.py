"""The checkpoints in the models folder, which is the only record of what was published."""

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
    """The checkpoint's name in aurora.json, without the digest."""
    return f"ckpt-{sequence}"


def newest_sequence(models: Path) -> int:
    """The highest sequence in the folder; 0 if it is empty.

    Judged by name alone: even an unreadable checkpoint has used its number.
    """
    return max((sequence for sequence, _ in checkpoint_folders(models)), default=0)


def published_after(models: Path, sequence: int) -> list[PublishedDraft]:
    """The checkpoints with a higher sequence and a sound manifest, in order."""
    found = []
    for number, folder in sorted(checkpoint_folders(models)):
        if number <= sequence:
            continue
        try:
            found.append(PublishedDraft(number, folder, read_manifest(folder)))
        except CheckpointError as error:
            # It may be being deleted at this moment.
            logger.warning("checkpoint ignored", extra={"fields": {"reason": str(error)}})
    return found


def discard_unfinished(models: Path) -> None:
    """Removes checkpoints that a killed trainer left half-written; call before publishing."""
    for folder in models.glob(_UNFINISHED):
        shutil.rmtree(folder, ignore_errors=True)
