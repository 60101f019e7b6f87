"""The delay before an exited component is restarted."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 30.0
# A component that was up for so long is no longer in a crash loop.
RESET_AFTER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Counts the consecutive exits that came too soon."""

    failures: int = 0

    def after_exit(self, up_seconds: float) -> Backoff:
        return Backoff(1 if up_seconds >= RESET_AFTER_SECONDS else self.failures + 1)

    @property
    def delay_seconds(self) -> float:
        """Doubles with each failure: 0.25, 0.5, 1, … 30."""
        if self.failures == 0:
            return 0.0
        # The exponent is bounded, or a long crash loop would overflow a float.
        return min(FIRST_DELAY_SECONDS * 2.0 ** min(self.failures - 1, 16), LONGEST_DELAY_SECONDS)
