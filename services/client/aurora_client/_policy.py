"""How long a call may take and when it is tried again, as values."""

from __future__ import annotations

from dataclasses import dataclass, fields

from aurora_client._errors import AuroraClientError, OverloadedError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """How long a call may take in all: every attempt and the pauses between them.

    `call_seconds` holds for calls with one answer, `generate_seconds` for a whole completion,
    `stage_seconds` for loading a checkpoint. A watch has no end: its call is renewed every
    `watch_seconds`, which its iterator does not show.
    """

    call_seconds: float = 30.0
    generate_seconds: float = 600.0
    stage_seconds: float = 300.0
    watch_seconds: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            seconds = getattr(self, field.name)
            if not seconds > 0:
                raise ValueError(f"{field.name} must be above 0, got {seconds}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a call that failed is tried again.

    An unavailable server is tried up to `retries` times more, as long as nothing of its answer has
    arrived; a full queue only where `overloaded` says so. The pause doubles from `initial_seconds`
    up to `max_seconds`, of which the upper half is random, so that clients do not come back all at
    once.
    """

    retries: int = 2
    initial_seconds: float = 0.1
    max_seconds: float = 2.0
    overloaded: bool = False

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries must be at least 0, got {self.retries}")
        if not 0 <= self.initial_seconds <= self.max_seconds:
            raise ValueError(
                "0 <= initial_seconds <= max_seconds must hold, "
                f"got {self.initial_seconds} and {self.max_seconds}"
            )

    def covers(self, error: AuroraClientError) -> bool:
        """Whether a call that ended with `error` may be tried again."""
        return isinstance(error, UnavailableError) or (
            self.overloaded and isinstance(error, OverloadedError)
        )

    def pause_seconds(self, failures: int, uniform: float) -> float:
        """The pause after the `failures`-th failure (1, 2, …); `uniform` in [0, 1) spreads it."""
        ceiling = min(self.max_seconds, self.initial_seconds * 2.0 ** (failures - 1))
        return ceiling * (0.5 + 0.5 * uniform)


DEFAULT_TIMEOUT = Timeout()
DEFAULT_RETRY = Retry()


class Attempts:
    """The deadline and the tries left of one call; times are seconds of one monotonic clock."""

    def __init__(self, retry: Retry, *, started_at: float, seconds: float) -> None:
        self._retry = retry
        self._deadline = started_at + seconds
        self._failures = 0

    def remaining_seconds(self, now: float) -> float:
        """What is left for the next attempt, never negative."""
        return max(0.0, self._deadline - now)

    def pause_seconds(self, error: AuroraClientError, now: float, uniform: float) -> float | None:
        """Counts a failure; the pause before the next attempt, None where there is none.

        A pause that would outlast the deadline is not worth waiting for.
        """
        self._failures += 1
        if self._failures > self._retry.retries or not self._retry.covers(error):
            return None
        pause = self._retry.pause_seconds(self._failures, uniform)
        return pause if pause < self.remaining_seconds(now) else None
