"""JSON logs on stderr, one object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# The field with what a person who waits for the component is shown.
PROGRESS = "progress"


class JsonFormatter(logging.Formatter):
    """time, level, logger and message, then the fields of `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(level: str = "INFO") -> None:
    """Sends every logger to stderr as JSON lines; call once, from `__main__`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def report(progress: str) -> None:
    """Logs what a starting component does, for the person who waits for it."""
    logging.getLogger(__name__).info("starting", extra={"fields": {PROGRESS: progress}})
