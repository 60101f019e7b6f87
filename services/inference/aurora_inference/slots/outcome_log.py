"""What became of the requests of the current rollout, in the order in which they were admitted.

In the order of their ends, a draft that is faster would be seen earlier, and so at another time of
a trend, than one that is slower. So an outcome is listed only once every request admitted before it
has ended. A request that never ends holds up the others until it is given up: ten minutes after it
was admitted, or 32,768 requests later. It then counts as timed out, whatever becomes of it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from aurora_inference.contract import Arm, Cursor, Ending, Outcome, OutcomePage, Served

# At 100 requests a second the reader may be away for ten minutes.
_MAX_OUTCOMES = 65_536
_DEADLINE_SECONDS = 600.0
_DEADLINE_REQUESTS = _MAX_OUTCOMES // 2


@dataclass(slots=True)
class _Entry:
    """`candidates`: how many of the requests up to this one drew the candidate."""

    outcome: Outcome
    admitted_at: float
    candidates: int
    ended: bool = False


class OutcomeLog:
    """Numbers requests from 1 and keeps the newest; `instance` marks the cursors it issues."""

    def __init__(self, instance: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.instance = instance
        # The one that is followed, empty if none, and the one whose entries are kept.
        self.rollout_id = ""
        self._kept_rollout_id = ""
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._last_sequence = 0
        self._candidates = 0
        # The rollout and sequence of the newest cursor that came back.
        self._received = ("", 0)

    def follow(self, rollout_id: str) -> None:
        """Admits requests of this rollout from now on, none if empty; another one starts anew."""
        if rollout_id and rollout_id != self._kept_rollout_id:
            self._entries.clear()
            self._last_sequence = self._candidates = 0
            self._kept_rollout_id = rollout_id
        self.rollout_id = rollout_id

    def begin_anew(self) -> None:
        """The engine has died: what was not read of the former instance is lost."""
        self.instance = uuid.uuid4().hex
        self._entries.clear()
        self._last_sequence = self._candidates = 0

    def admit(
        self, arm: Arm, *, stable_digest: str, candidate_digest: str, candidate_bps: int
    ) -> int:
        """The sequence of a request that begins."""
        outcome = Outcome(
            arm,
            stable_digest,
            candidate_digest,
            candidate_bps,
            ending="timed_out",
            served=Served(),
        )
        return self._append(outcome, ended=False)

    def end(self, rollout_id: str, sequence: int, ending: Ending, served: Served) -> None:
        """Records how a request ended, unless it was given up or another rollout is followed."""
        entry = self._entries.get(sequence) if rollout_id == self._kept_rollout_id else None
        if entry is None or self._has_ended(entry):
            return
        entry.ended = True
        entry.outcome = replace(entry.outcome, ending=ending, served=served)

    def record(self, rollout_id: str, outcome: Outcome) -> None:
        """Appends what has ended, such as a pair of blocks; ignored if another is followed."""
        if rollout_id == self._kept_rollout_id:
            self._append(outcome, ended=True)

    def page(self, rollout_id: str, cursor: Cursor, limit: int) -> OutcomePage:
        """At most `limit` outcomes after `cursor`, none if another rollout is followed."""
        after = 0
        if cursor.instance == self.instance:
            after = cursor.sequence
            self._received = (rollout_id, after)
        if rollout_id != self.rollout_id:
            return OutcomePage((), Cursor(self.instance, after), {"stable": 0, "candidate": 0})
        oldest = next(iter(self._entries), 1)
        outcomes: list[Outcome] = []
        for sequence in range(max(after + 1, oldest), self._last_sequence + 1):
            entry = self._entries[sequence]
            if len(outcomes) == limit or not self._has_ended(entry):
                break
            outcomes.append(entry.outcome)
        last = outcomes[-1].sequence if outcomes else max(after, oldest - 1)
        return OutcomePage(tuple(outcomes), Cursor(self.instance, last), self._unlisted(last))

    def _append(self, outcome: Outcome, *, ended: bool) -> int:
        self._last_sequence += 1
        self._candidates += outcome.arm == "candidate"
        numbered = replace(outcome, sequence=self._last_sequence)
        self._entries[self._last_sequence] = _Entry(
            numbered, self._clock(), self._candidates, ended
        )
        if len(self._entries) > _MAX_OUTCOMES:
            del self._entries[next(iter(self._entries))]
        return self._last_sequence

    def _has_ended(self, entry: _Entry) -> bool:
        """Whether its outcome is final."""
        return (
            entry.ended
            or self._clock() - entry.admitted_at >= _DEADLINE_SECONDS
            or self._last_sequence - entry.outcome.sequence >= _DEADLINE_REQUESTS
        )

    def _unlisted(self, last: int) -> dict[Arm, int]:
        """The requests admitted after sequence `last`, by arm."""
        following = self._entries.get(last + 1)
        if following is None:
            return {"stable": 0, "candidate": 0}
        before = following.candidates - (following.outcome.arm == "candidate")
        candidates = self._candidates - before
        return {"stable": self._last_sequence - last - candidates, "candidate": candidates}

    @property
    def drained(self) -> bool:
        """Whether a cursor has confirmed every outcome of the rollout that is followed."""
        if not self.rollout_id or self._last_sequence == 0:
            return True
        rollout_id, sequence = self._received
        return rollout_id == self.rollout_id and sequence >= self._last_sequence
