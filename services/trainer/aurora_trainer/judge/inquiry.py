"""A pair of drafts that is asked about: its scores so far, and whether it is in memory."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from aurora.buffer.v1 import buffer_pb2
from aurora_common.outage import Outage
from aurora_common.stream_id import stream_order
from aurora_trainer.judge.comparison import Pair, Score, Unjudged


class Scorer(Protocol):
    """Two drafts in memory."""

    def score(self, entry: buffer_pb2.Entry) -> Score | Unjudged: ...


@dataclass(slots=True)
class Progress:
    """`scores` are those of all requests after `begin` and up to `position`."""

    begin: str
    position: str
    scores: deque[Score] = field(default_factory=deque)

    def covers(self, after: str) -> bool:
        """Whether an answer from there can be given, now or by going on."""
        orders = [stream_order(each) for each in (self.begin, after, self.position)]
        return orders == sorted(orders)

    def drop_through(self, after: str) -> None:
        """Forgets scores that the caller has."""
        self.begin = after
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
    progress: Progress
    outage: Outage
    # The time of the last question.
    asked_at: float = -math.inf
    scorer: Scorer | None = None
    refusal: Refusal | None = None

    def go_to(self, after: str) -> None:
        """Begins anew from there unless its scores cover it; the drafts stay."""
        if not self.progress.covers(after):
            self.progress = Progress(begin=after, position=after)
        self.progress.drop_through(after)
