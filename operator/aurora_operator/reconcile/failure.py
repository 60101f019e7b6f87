"""Failures that last: one that a retry mends is nobody's business."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

# Less than the two minutes after which a failure is reported: it may be noticed late.
LASTING_SECONDS = 45.0


@dataclass(frozen=True, slots=True)
class _Failure:
    since: float
    cause: str


class LastingFailures:
    """What failed for 45 s without a success in between, by name."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    def failed(self, name: str, cause: str) -> None:
        before = self._failures.get(name)
        since = time.monotonic() if before is None else before.since
        self._failures[name] = _Failure(since, cause)

    def succeeded(self, name: str) -> None:
        self._failures.pop(name, None)

    def retain(self, names: Collection[str]) -> None:
        """Forgets all others."""
        self._failures = {name: it for name, it in self._failures.items() if name in names}

    def __bool__(self) -> bool:
        """Whether anything fails, lastingly or not."""
        return bool(self._failures)

    def lasting(self) -> dict[str, str]:
        """The newest cause of each lasting failure."""
        until = time.monotonic() - LASTING_SECONDS
        return {name: it.cause for name, it in self._failures.items() if it.since <= until}
