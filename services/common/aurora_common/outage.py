"""Logs a failure that may last, without a line for each attempt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_FIRST_REPEAT_SECONDS = 60.0
_LONGEST_REPEAT_SECONDS = 3600.0
# New reasons are logged at once, but only so many between two repeats.
_MOST_REASONS = 5


class Outage:
    """Logs when a failure begins or has a new reason, then after 1, 2, 4 … minutes, and its end."""

    def __init__(
        self, logger: logging.Logger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._began_at: float | None = None
        self._repeat_at = 0.0
        self._repeat_seconds = _FIRST_REPEAT_SECONDS
        self._reasons: set[str] = set()

    def failed(self, message: str, reason: str) -> None:
        """Called for each failed attempt; `reason` says what the other side said."""
        now = self._clock()
        if self._began_at is None:
            self._began_at = now
            self._repeat_seconds = _FIRST_REPEAT_SECONDS
            self._repeat_at = now + self._repeat_seconds
            self._reasons = set()
        elif now >= self._repeat_at:
            self._repeat_seconds = min(2 * self._repeat_seconds, _LONGEST_REPEAT_SECONDS)
            self._repeat_at = now + self._repeat_seconds
            self._reasons = set()
        elif reason in self._reasons or len(self._reasons) >= _MOST_REASONS:
            return
        self._reasons.add(reason)
        fields = {"reason": reason, "lasted_seconds": round(now - self._began_at)}
        self._logger.warning(message, extra={"fields": fields})

    def ended(self, message: str) -> None:
        """Called for each successful attempt after which `failed` may be called again."""
        fields = {}
        if self._began_at is not None:
            fields["lasted_seconds"] = round(self._clock() - self._began_at)
        self._began_at = None
        self._logger.info(message, extra={"fields": fields})
