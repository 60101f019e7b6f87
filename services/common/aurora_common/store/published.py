"""The drafts published in a folder: listing and pruning."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from aurora_common.checkpoint import CheckpointManifest, read_manifest
from aurora_common.errors import CheckpointError, StorageError

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"ckpt-(\d+)-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class PublishedDraft:
    """One complete checkpoint."""

    sequence: int
    folder: Path
    manifest: CheckpointManifest


class PublishedDrafts:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def drafts(self) -> list[PublishedDraft]:
        """The checkpoints with a valid manifest, newest first."""
        found = []
        for sequence, folder in self._folders():
            try:
                found.append(PublishedDraft(sequence, folder, read_manifest(folder)))
            except CheckpointError as error:
                logger.warning("checkpoint skipped", extra={"fields": {"reason": str(error)}})
        return found

    def prune(self, *, keep: int, needed: frozenset[str], seen_sequence: int) -> list[str]:
        """Deletes all but the newest `keep` checkpoints; returns the names of those deleted.

        Also kept: the digests in `needed`, anything published after `seen_sequence`, and any
        checkpoint without a valid manifest, for a person to inspect.
        """
        removed = []
        for draft in self.drafts()[keep:]:
            if draft.manifest.digest in needed or draft.sequence > seen_sequence:
                continue
            # Renamed first: a half-deleted checkpoint never appears under its own name.
            doomed = draft.folder.with_name(f".{draft.folder.name}.partial")
            try:
                draft.folder.rename(doomed)
                shutil.rmtree(doomed)
            except OSError as error:
                fields = {"checkpoint": str(draft.folder), "reason": error.strerror}
                logger.warning("checkpoint deletion failed", extra={"fields": fields})
                continue
            removed.append(draft.folder.name)
        if removed:
            logger.info("checkpoints deleted", extra={"fields": {"checkpoints": removed}})
        return removed

    def _folders(self) -> list[tuple[int, Path]]:
        try:
            return sorted(checkpoint_folders(self._folder), reverse=True)
        except StorageError:
            return []


def checkpoint_folders(models: Path) -> list[tuple[int, Path]]:
    """Sequence and folder of each checkpoint in `models`, by name alone, unordered.

    Empty until the first publication creates the folder. Raises StorageError if it cannot be read.
    """
    try:
        entries = list(models.iterdir()) if models.exists() else []
    except OSError as error:
        raise StorageError(f"cannot read {models}: {error.strerror}") from error
    matches = ((_FOLDER.fullmatch(entry.name), entry) for entry in entries)
    return [(int(match[1]), entry) for match, entry in matches if match]
