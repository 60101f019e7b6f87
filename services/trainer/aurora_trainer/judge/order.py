"""Recorded requests in the order of their admission, from a stream in the order of their ends.

In the stream, short answers come first wherever many requests begin at once: what is said of the
first ones is not said of the traffic. So a request is held back until no request is known to be in
flight that was admitted before it, as each record tells when the oldest in its engine was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from aurora.buffer.v1 import buffer_pb2
from aurora_common.stream_id import stream_order

T = TypeVar("T")

# A request holds up others for at most so long after it was admitted, an engine after its last
# record: it was lost, or its end leaves no record.
LONGEST_SECONDS = 600
SILENT_SECONDS = 60
# A sender that did not hear of its success sends again, soon.
_AGAIN_SECONDS = 60
# A request is held back for at most so many records.
MOST_RECORDS = 4096
# Clocks are not quite alike.
_SLACK_SECONDS = 5


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    """`number`: of its record."""

    at_us: int
    number: int
    item: T


@dataclass(frozen=True, slots=True)
class _Engine:
    """Of its last record: when, and since when its oldest request was in flight."""

    recorded_us: int
    open_since_us: int


class AdmissionOrder(Generic[T]):
    """Reads records in the order of the stream, and returns them in that of their admission.

    Of requests admitted after `begin`, a position in the stream; empty: all. What a record releases
    follows from the records since `begin` alone, and from those since `rereads_from`: time is that
    of the stream. A record without an admission is returned at once, one that comes again within a
    minute not at all.
    """

    def __init__(self, begin: str) -> None:
        self._begin_us = _time_us(begin) if begin else -1
        self._number = 0
        self._held: list[_Held[T]] = []
        self._engines: dict[str, _Engine] = {}
        # When requests of the last minute were recorded, the oldest first.
        self._seen: dict[tuple[str, int], int] = {}

    def is_early(self, admission: buffer_pb2.Admission) -> bool:
        """Whether a request was admitted before the comparison began."""
        return 0 < admission.at_us <= self._begin_us

    def read(self, position: str, admission: buffer_pb2.Admission, item: T) -> list[T]:
        """What is released by the record at a position, which may be among it."""
        now_us = _time_us(position)
        self._number += 1
        if not self._comes_again(admission, now_us):
            if admission.engine:
                self._engines[admission.engine] = _Engine(now_us, admission.open_since_us)
            if not self.is_early(admission):
                # Not later than its record, whatever its engine's clock says.
                at_us = min(admission.at_us, now_us)
                self._held.append(_Held(at_us, self._number, item))
        return list(self._released(now_us))

    def _comes_again(self, admission: buffer_pb2.Admission, now_us: int) -> bool:
        if not admission.engine:
            return False
        while self._seen and now_us - next(iter(self._seen.values())) > _AGAIN_SECONDS * 1_000_000:
            del self._seen[next(iter(self._seen))]
        request = (admission.engine, admission.at_us)
        is_known = request in self._seen
        if not is_known:
            self._seen[request] = now_us
        return is_known

    def _released(self, now_us: int) -> Iterator[T]:
        complete_us = self._complete_us(now_us)
        due, held = list[_Held[T]](), list[_Held[T]]()
        for one in self._held:
            is_due = one.at_us <= complete_us or self._number - one.number >= MOST_RECORDS
            (due if is_due else held).append(one)
        self._held = held
        for one in sorted(due, key=lambda each: (each.at_us, each.number)):
            yield one.item

    def _complete_us(self, now_us: int) -> int:
        """Until when all that were admitted have ended, as far as that is known."""
        self._engines = {
            name: engine
            for name, engine in self._engines.items()
            if now_us - engine.recorded_us < SILENT_SECONDS * 1_000_000
        }
        open_us = [each.open_since_us for each in self._engines.values() if each.open_since_us]
        return max(min(open_us, default=now_us), now_us - LONGEST_SECONDS * 1_000_000)


def rereads_from(begin: str, after: str) -> str:
    """From where to read so that what is released after `after` is what it always was."""
    seconds = LONGEST_SECONDS + SILENT_SECONDS + _SLACK_SECONDS
    milliseconds = stream_order(after)[0] - seconds * 1000
    return max(begin, f"{milliseconds}-0" if milliseconds > 0 else "", key=stream_order)


def _time_us(position: str) -> int:
    return stream_order(position)[0] * 1000
