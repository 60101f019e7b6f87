"""The last line of a program's log, as the cause of its exit."""

from __future__ import annotations

import json

_LONGEST_CHARACTERS = 300


def last_line(text: str) -> str:
    """The last non-empty line, or its message if it is a JSON log line; truncated."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _message(lines[-1])[:_LONGEST_CHARACTERS] if lines else ""


def _message(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if isinstance(entry, dict) and isinstance(entry.get("message"), str):
        return str(entry["message"])
    return line
