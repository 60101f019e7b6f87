"""What a process said last, for the person who asks why it does not run."""

from __future__ import annotations

import json
from pathlib import Path

_TAIL_BYTES = 8192
_LONGEST_CHARACTERS = 300


def last_words(log: Path) -> str:
    """The last line of a log, its message where it is a JSON line; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return _message(lines[-1])[:_LONGEST_CHARACTERS] if lines else ""


def _message(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if isinstance(entry, dict) and isinstance(entry.get("message"), str):
        return str(entry["message"])
    return line
