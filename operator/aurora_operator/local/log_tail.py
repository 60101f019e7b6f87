"""The end of a component's log: what it is loading, and why it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aurora_common.log import PROGRESS
from aurora_operator.domain.objects.cause import last_line

_TAIL_BYTES = 16_384
_LONGEST_CHARACTERS = 300


class LogTail:
    """The part of a log that was written since this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = self._size()
        self._read_until = self._begin
        self._progress = ""

    def progress(self) -> str:
        """What the component last said it is doing; empty before it said anything."""
        size = self._size()
        if size != self._read_until:
            self._read_until = size
            for entry in map(_entry, last_lines(self._path, self._begin)):
                if isinstance(entry.get(PROGRESS), str):
                    self._progress = _shown(entry[PROGRESS])
        return self._progress

    def error(self) -> str:
        """The last error line; empty if there is none."""
        return last_error_line(self._path, self._begin)

    def last(self) -> str:
        """The last line; if it is JSON, its message and reason."""
        return _shown(last_line("\n".join(last_lines(self._path, self._begin))))

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def last_error_line(path: Path, begin: int = 0) -> str:
    """The last line at or after `begin` that is not a JSON log line below level error."""
    found = ""
    for line in last_lines(path, begin):
        entry = _entry(line)
        if not entry:
            found = line
        elif entry.get("level") in ("error", "critical"):
            found = " ".join(
                str(entry[key]) for key in ("message", "reason", "exception") if key in entry
            )
    return _shown(found)


def last_lines(path: Path, begin: int) -> Iterator[str]:
    """The lines at the end of a log that are not empty, from `begin` on; none if it is missing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            # A rotated log is shorter than it was.
            file.seek(max(begin if begin <= size else 0, size - _TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError:
        return
    yield from (line.strip() for line in tail.splitlines() if line.strip())


def _entry(line: str) -> dict[str, Any]:
    """A JSON log line; empty for any other."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _shown(text: str) -> str:
    """On one line, without control characters, shortened."""
    words = "".join(each if each.isprintable() else " " for each in text).split()
    return " ".join(words)[:_LONGEST_CHARACTERS]
