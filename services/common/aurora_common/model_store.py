"""The folder in which drafts are published: what lies there, and what may go."""

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
class StoredDraft:
    """One complete checkpoint."""

    sequence: int
    folder: Path
    manifest: CheckpointManifest


class ModelStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def drafts(self) -> list[StoredDraft]:
        """The checkpoints with a sound manifest, newest first."""
        found = []
        for sequence, folder in self._folders():
            try:
                found.append(StoredDraft(sequence, folder, read_manifest(folder)))
            except CheckpointError as error:
                logger.warning("checkpoint left out", extra={"fields": {"reason": str(error)}})
        return found

    def prune(self, *, keep: int, needed: frozenset[str], seen_sequence: int) -> list[str]:
        """Removes the checkpoints behind the newest `keep`; the names of those removed.

        Kept as well: the digests in `needed`, what was published after `seen_sequence`, and what
        has no sound manifest, for a person to look at.
        """
        removed = []
        for stored in self.drafts()[keep:]:
            if stored.manifest.digest in needed or stored.sequence > seen_sequence:
                continue
            # Renamed first: half a checkpoint under its own name is never seen.
            doomed = stored.folder.with_name(f".{stored.folder.name}.partial")
            try:
                stored.folder.rename(doomed)
                shutil.rmtree(doomed)
            except OSError as error:
                fields = {"checkpoint": str(stored.folder), "reason": error.strerror}
                logger.warning("checkpoint not removed", extra={"fields": fields})
                continue
            removed.append(stored.folder.name)
        if removed:
            logger.info("checkpoints removed", extra={"fields": {"checkpoints": removed}})
        return removed

    def _folders(self) -> list[tuple[int, Path]]:
        try:
            return sorted(checkpoint_folders(self._folder), reverse=True)
        except StorageError:
            return []


def checkpoint_folders(models: Path) -> list[tuple[int, Path]]:
    """Sequence and folder of each checkpoint in `models`, by name alone and in no order.

    None before the first publication has made the folder. Raises StorageError where it cannot be
    read.
    """
    try:
        entries = list(models.iterdir()) if models.exists() else []
    except OSError as error:
        raise StorageError(f"cannot read {models}: {error.strerror}") from error
    matches = ((_FOLDER.fullmatch(entry.name), entry) for entry in entries)
    return [(int(match[1]), entry) for match, entry in matches if match]
