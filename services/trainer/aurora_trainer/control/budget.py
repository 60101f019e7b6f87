"""How much of the time may be spent training."""

from __future__ import annotations

from dataclasses import dataclass, field

# What idle time may save up for when there is something to learn.
BURST_SECONDS = 30.0


@dataclass(slots=True)
class Budget:
    """Allows work for at most `max_share_percent` of the time, as a token bucket does.

    Over any stretch of time, work takes that share of it, `BURST_SECONDS` more at most, and the
    piece of work that was begun last. A new one has nothing saved up: restarts earn nothing. Times
    are seconds of one monotonic clock.
    """

    max_share_percent: int
    began_at: float
    spent_seconds: float = 0.0
    _credit_seconds: float = field(default=0.0, init=False)
    _credited_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._credited_at = self.began_at

    def allows(self, now: float) -> bool:
        """Whether a piece of work may begin."""
        return self.max_share_percent >= 100 or self._credit(now) > 0

    def spend(self, seconds: float, now: float) -> None:
        """Counts work that ended at `now`."""
        self._credit_seconds = self._credit(now) - seconds
        self._credited_at = now
        self.spent_seconds += seconds

    def share(self, now: float) -> float:
        """The share of the time since the beginning that was spent, 0..1."""
        passed = now - self.began_at
        return min(1.0, self.spent_seconds / passed) if passed > 0 else 0.0

    def waits_seconds(self, now: float) -> float:
        """How long until work may begin."""
        if self.allows(now):
            return 0.0
        return -self._credit(now) * 100 / self.max_share_percent

    def _credit(self, now: float) -> float:
        earned = (now - self._credited_at) * self.max_share_percent / 100
        return min(BURST_SECONDS, self._credit_seconds + earned)
