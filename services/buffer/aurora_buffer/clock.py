"""Redis' clock as the buffer knows it between Redis' answers."""

from __future__ import annotations

from dataclasses import dataclass

# Either clock may be set, or the machine sleep: a reading may be wrong by no more than this.
LONGEST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What Redis' clock and the local one showed at a time, in seconds since 1970."""

    redis_seconds: float
    local_seconds: float

    def redis_milliseconds(self, *, now_seconds: float) -> int | None:
        """Redis' time when the local clock shows `now_seconds`; None once that is too long ago."""
        passed = now_seconds - self.local_seconds
        if not 0 <= passed <= LONGEST_SECONDS:
            return None
        return int((self.redis_seconds + passed) * 1000)
