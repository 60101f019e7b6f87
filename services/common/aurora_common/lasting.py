"""Failures that last: one that a retry mends is nobody's business."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

# Less than the two minutes after which a failure is reported: it may be noticed late.
LASTING_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class _Failure:
    since: float
    newest: float
    cause: str


class LastingFailures:
    """What failed for 45 s without a success in between, by name.

    `quiet_seconds`: after so long without another failure, one is over as well. Thread-safe.
    """

    def __init__(
        self, *, quiet_seconds: float = float("inf"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._failures: dict[str, _Failure] = {}

    def failed(self, name: str, cause: str) -> None:
        now = self._clock()
        before = self._failures.get(name)
        since = before.since if before is not None and self._goes_on(before, now) else now
        self._failures[name] = _Failure(since, now, cause)

    def succeeded(self, name: str) -> None:
        self._failures.pop(name, None)

    def retain(self, names: Collection[str]) -> None:
        """Forgets all others."""
        self._failures = {name: it for name, it in self._failures.items() if name in names}

    def __bool__(self) -> bool:
        """Whether anything fails, lastingly or not."""
        now = self._clock()
        return any(self._goes_on(it, now) for it in tuple(self._failures.values()))

    def lasting(self) -> dict[str, str]:
        """The newest cause of each lasting failure."""
        now = self._clock()
        return {
            name: it.cause
            for name, it in tuple(self._failures.items())
            if it.since <= now - LASTING_SECONDS and self._goes_on(it, now)
        }

    def _goes_on(self, failure: _Failure, now: float) -> bool:
        return now - failure.newest <= self._quiet_seconds
