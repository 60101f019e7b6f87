"""The records of ended rollouts, in a folder beside the checkpoints."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from aurora_common.durable import write_file
from aurora_common.errors import InvalidInputError, StorageError

logger = logging.getLogger(__name__)

FOLDER = "rollouts"
# How many of the newest are kept.
KEPT = 500
MAX_BYTES = 256 * 1024
_NAME = re.compile(r"(\d{1,18})-[0-9a-f]{12}(-watch)?")


def keep_record(models: Path, name: str, content: bytes) -> None:
    """Writes `rollouts/<name>.json`, over an earlier one, and removes the oldest beyond KEPT.

    Raises InvalidInputError if the name or the content is not allowed, StorageError if it cannot be
    written, with an earlier one unchanged.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(
            f"{name!r} is no record's name: use <number>-<12 hex digits>, or that with -watch"
        )
    if len(content) > MAX_BYTES:
        raise InvalidInputError(
            f"record {name} has {len(content)} bytes; allowed are at most {MAX_BYTES}"
        )
    _check(name, content)
    folder = models / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {folder}: {error.strerror}") from error
    write_file(folder / f"{name}.json", content)
    _prune(folder)


def _check(name: str, content: bytes) -> None:
    try:
        found: object = json.loads(content)
    except ValueError as error:
        raise InvalidInputError(f"record {name} is not JSON: {error}") from error
    if not isinstance(found, dict) or not {"apiVersion", "kind"} <= found.keys():
        raise InvalidInputError(f"record {name} is not an object with apiVersion and kind")


def _prune(folder: Path) -> None:
    """Removes the records of the lowest numbers."""
    found = [
        (int(match[1]), path)
        for path in folder.glob("*.json")
        if (match := _NAME.fullmatch(path.stem)) is not None
    ]
    for _, path in sorted(found)[:-KEPT]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            fields = {"record": path.name, "reason": error.strerror}
            logger.warning("rollout record deletion failed", extra={"fields": fields})
