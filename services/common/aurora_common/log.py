"""JSON logs on stderr, one object per line."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import OrderedDict
from datetime import UTC, datetime

# The field with what a person who waits for the component is shown.
PROGRESS = "progress"
_FIRST_SECONDS = 1.0
_LAST_SECONDS = 600.0
# The number of different warnings that are remembered.
_KNOWN = 1000


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


class Backoff(logging.Filter):
    """Drops repeats of a warning for a time that doubles with each, from 1 s to 10 minutes.

    What passes says in `repeated` how many were dropped before it. Tracebacks always pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        # When the next one passes (monotonic), for how long then none does, and how many did not.
        self._known: OrderedDict[str, tuple[float, float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.exc_info:
            return True
        fields = getattr(record, "fields", {})
        with self._lock:
            dropped = self._dropped(f"{record.name} {record.getMessage()} {fields}")
        if dropped:
            record.fields = {**fields, "repeated": dropped}
        return dropped is not None

    def _dropped(self, text: str) -> int | None:
        """How many were dropped before this one; None if it is dropped too."""
        now = time.monotonic()
        due, seconds, dropped = self._known.pop(text, (now, _FIRST_SECONDS / 2, 0))
        if now < due:
            self._known[text] = (due, seconds, dropped + 1)
            return None
        # After a silence it is news again.
        longer = _FIRST_SECONDS if now > due + seconds else min(2 * seconds, _LAST_SECONDS)
        self._known[text] = (now + longer, longer, 0)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return dropped


def configure(level: str = "INFO", *, backs_off: bool = False) -> None:
    """Sends every logger to stderr as JSON lines; call once, from `__main__`.

    `backs_off`: repeated warnings are written ever more rarely.
    """
    handler = logging.StreamHandler(sys.stderr)
    if backs_off:
        handler.addFilter(Backoff())
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def report(progress: str) -> None:
    """Logs what a starting component does, for the person who waits for it."""
    logging.getLogger(__name__).info("starting", extra={"fields": {PROGRESS: progress}})
