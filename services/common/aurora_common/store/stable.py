"""Which of a deployment's published drafts is stable, in a file beside them.

The deployment's status says so as long as the deployment lives. One that is created anew under the
same name, for the same target, begins with the draft that the file names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aurora_common.checkpoint import verified_manifest
from aurora_common.durable import write_file
from aurora_common.errors import CheckpointError
from aurora_common.store.published import PublishedDraft, PublishedDrafts

logger = logging.getLogger(__name__)

STABLE = "stable.json"


@dataclass(frozen=True, slots=True)
class StableRecord:
    """The content of `stable.json`.

    `seen_sequence`: the newest publication that was considered. `attempts`: how many candidates
    were tried since the last promotion.
    """

    digest: str
    seen_sequence: int = 0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Restorable:
    """What was recorded, and the draft that it names."""

    record: StableRecord
    draft: PublishedDraft


class StableFile:
    """The record in a folder of published drafts.

    `is_target`: whether a target digest is that of the target that is served.
    """

    def __init__(self, models: Path, is_target: Callable[[str], bool]) -> None:
        self._models = models
        self._is_target = is_target
        # Hashing a draft takes seconds: the last one whose files were verified.
        self._verified = ""

    def write(self, record: StableRecord) -> None:
        """Replaces the record; raises StorageError on failure."""
        if record != self._read():
            content = json.dumps(asdict(record), indent=2, sort_keys=True)
            write_file(self._models / STABLE, f"{content}\n".encode())

    def restorable(self) -> Restorable | None:
        """The recorded draft if its files have the recorded digest and are for this target."""
        record = self._read()
        if record is None:
            return None
        for draft in PublishedDrafts(self._models).drafts():
            if draft.manifest.digest == record.digest:
                return Restorable(record, draft) if self._is_sound(draft) else None
        # The draft of the manifest, or one that was deleted.
        return None

    def _is_sound(self, draft: PublishedDraft) -> bool:
        digest = draft.manifest.digest
        fields: dict[str, object] = {"checkpoint": draft.folder.name}
        if not self._is_target(draft.manifest.target_digest):
            logger.warning("stable draft is another target's; ignored", extra={"fields": fields})
            return False
        try:
            if self._verified != digest:
                verified_manifest(draft.folder, digest=digest)
        except (CheckpointError, OSError) as error:
            fields["reason"] = str(error)
            logger.warning("stable draft is damaged; ignored", extra={"fields": fields})
            return False
        self._verified = digest
        return True

    def _read(self) -> StableRecord | None:
        path = self._models / STABLE
        try:
            content: Any = json.loads(path.read_bytes())
            return _record(content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            told = {"path": str(path), "reason": str(error)}
            logger.warning("record of the stable draft is unreadable", extra={"fields": told})
            return None


def _record(content: Any) -> StableRecord:
    """Keys of later versions are ignored; raises ValueError if it is none."""
    if not isinstance(content, dict) or not isinstance(content.get("digest"), str):
        raise ValueError('it is no object with a "digest"')
    known = {field.name for field in fields(StableRecord)}
    numbers = [content.get(name, 0) for name in known - {"digest"}]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("its numbers must be integers from 0")
    return StableRecord(**{name: value for name, value in content.items() if name in known})
