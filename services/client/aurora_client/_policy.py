"""Timeouts and retries as values."""

from __future__ import annotations

from dataclasses import dataclass, fields

from aurora_client._errors import AuroraClientError, OverloadedError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """The total time of a call, all attempts and pauses included.

    `call_seconds` applies to unary calls, `generate_seconds` to a whole completion, `stage_seconds`
    to loading a checkpoint. A watch is endless: its call is renewed every `watch_seconds`,
    invisibly to its iterator.
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
    """When a failed call is retried.

    If the server is unavailable, up to `retries` times, as long as nothing of the response has
    arrived; if its queue is full, only with `overloaded`. The pause doubles from `initial_seconds`
    up to `max_seconds`; its upper half is random, so that clients do not all return at once.
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
        """Whether a call that ended with `error` may be retried."""
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
    """One call's deadline and remaining attempts; times are seconds of one monotonic clock."""

    def __init__(self, retry: Retry, *, started_at: float, seconds: float) -> None:
        self._retry = retry
        self._deadline = started_at + seconds
        self._failures = 0

    def remaining_seconds(self, now: float) -> float:
        """Time left for the next attempt, never negative."""
        return max(0.0, self._deadline - now)

    def pause_seconds(self, error: AuroraClientError, now: float, uniform: float) -> float | None:
        """Counts a failure; returns the pause before the next attempt, None if there is none.

        No attempt follows a pause that would outlast the deadline.
        """
        self._failures += 1
        if self._failures > self._retry.retries or not self._retry.covers(error):
            return None
        pause = self._retry.pause_seconds(self._failures, uniform)
        return pause if pause < self.remaining_seconds(now) else None
