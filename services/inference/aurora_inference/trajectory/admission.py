"""In which order recorded requests were admitted, and which of them are still in flight."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Admission:
    """When a request was admitted; times are microseconds of Unix time.

    `engine`: the run of the engine that admitted it, within which no two have the same `at_us`.
    `open_since_us`: when the oldest of those was admitted that were in flight as this one was
    recorded, and may be recorded as well; 0: none.
    """

    engine: str
    at_us: int
    open_since_us: int


class Admissions:
    """The requests in flight that may be recorded, by their ids; belongs to one thread."""

    def __init__(self, clock_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._engine = uuid.uuid4().hex
        self._clock_us = clock_us
        self._last_us = 0
        # When each was admitted, the oldest first.
        self._open: dict[str, int] = {}

    def begin(self, request_id: str) -> None:
        """Admits a request now, later than all before."""
        # The clock may be set back, and two may come within a microsecond.
        self._last_us = max(self._clock_us(), self._last_us + 1)
        self._open[request_id] = self._last_us

    def end(self, request_id: str) -> Admission | None:
        """A request is recorded now, or will never be; None if it was not admitted."""
        at_us = self._open.pop(request_id, None)
        if at_us is None:
            return None
        return Admission(self._engine, at_us, next(iter(self._open.values()), 0))
