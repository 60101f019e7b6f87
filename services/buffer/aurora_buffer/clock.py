"""Estimates Redis' clock between its answers."""

from __future__ import annotations

from dataclasses import dataclass

# A clock may be set, or the machine may sleep: this bounds the error of an estimate.
LONGEST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Redis' clock and the local one at the same moment, in seconds since 1970."""

    redis_seconds: float
    local_seconds: float

    def redis_milliseconds(self, *, now_seconds: float) -> int | None:
        """Redis' time at local time `now_seconds`; None once the reading is too old."""
        passed = now_seconds - self.local_seconds
        if not 0 <= passed <= LONGEST_SECONDS:
            return None
        return int((self.redis_seconds + passed) * 1000)
