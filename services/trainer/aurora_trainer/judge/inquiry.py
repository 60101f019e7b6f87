"""A pair of drafts that is asked about: its scores so far, and whether it is in memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Protocol

from aurora.buffer.v1 import buffer_pb2
from aurora_common.outage import Outage
from aurora_common.stream_id import stream_order
from aurora_trainer.judge.comparison import Pair, Score, Unjudged
from aurora_trainer.judge.order import AdmissionOrder, rereads_from
from aurora_trainer.judge.parity import Agreement


class Scorer(Protocol):
    """Two drafts in memory."""

    @property
    def agreements(self) -> tuple[Agreement, ...]: ...

    def score(self, entry: buffer_pb2.Entry) -> Score | Unjudged: ...


class Progress:
    """How far a comparison that began at `begin` has come.

    `scores` are those of all requests judged after `after`, up to `position`.
    """

    def __init__(self, begin: str, after: str) -> None:
        self.begin = begin
        self.after = after
        self.scores: deque[Score] = deque()
        self.order: AdmissionOrder[buffer_pb2.Entry] = AdmissionOrder(begin)
        # What was held back at `after` is read again.
        self.read_through = rereads_from(begin, after)

    @property
    def position(self) -> str:
        return max(self.after, self.read_through, key=stream_order)

    def covers(self, begin: str, after: str) -> bool:
        """Whether an answer from there can be given, now or by going on."""
        orders = [stream_order(each) for each in (self.after, after, self.position)]
        return begin == self.begin and orders == sorted(orders)

    def released(self, entry: buffer_pb2.Entry) -> list[buffer_pb2.Entry]:
        """What is to be judged now that an entry was read."""
        found = self.order.read(entry.id, entry.trajectory.admission, entry)
        return found if self.is_new(entry) else []

    def is_new(self, entry: buffer_pb2.Entry) -> bool:
        """Whether it was not read before `after`."""
        return stream_order(entry.id) > stream_order(self.after)

    def add(self, scores: Iterable[Score], *, read_through: str) -> None:
        """The scores of what was released by the entry `read_through`."""
        self.scores.extend(scores)
        self.read_through = read_through

    def page(self, limit: int) -> tuple[tuple[Score, ...], str]:
        """The next scores and the position after them; those of one position come together."""
        page = list(islice(self.scores, limit))
        if len(page) == len(self.scores):
            return tuple(page), self.position
        last = page[-1].id
        page += takewhile(lambda score: score.id == last, islice(self.scores, limit, None))
        return tuple(page), self.position if len(page) == len(self.scores) else last

    def drop_through(self, after: str) -> None:
        """Forgets scores that the caller has."""
        self.after = after
        while self.scores and stream_order(self.scores[0].id) <= stream_order(after):
            self.scores.popleft()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the drafts are not in memory; `retry_at` is infinite if they can never be compared."""

    reason: str
    retry_at: float


@dataclass(slots=True, eq=False)
class Inquiry:
    """`scorer`: its drafts in memory; `refusal`: why not. Neither: they are yet to be loaded."""

    pair: Pair
    outage: Outage
    progress: Progress = field(default_factory=lambda: Progress("", ""))
    # The time of the last question.
    asked_at: float = -math.inf
    scorer: Scorer | None = None
    refusal: Refusal | None = None

    def go_to(self, begin: str, after: str) -> None:
        """Begins anew from there unless its scores cover it; the drafts stay."""
        if not self.progress.covers(begin, after):
            self.progress = Progress(begin, after)
        self.progress.drop_through(after)
