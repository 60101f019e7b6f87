"""What a process said last, from the end of its log."""

from __future__ import annotations

from pathlib import Path

from aurora_operator.domain.objects.last_line import last_line

_TAIL_BYTES = 8192


def last_words(log: Path) -> str:
    """The last line of a log, its message where it is a JSON line; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError:
        return ""
    return last_line(tail)
