"""How the requests of the current rollout ended, for one reader with a cursor."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from aurora_inference.contract import Cursor, Outcome, OutcomePage

# At 100 requests a second the reader may be away for ten minutes.
_MAX_OUTCOMES = 65_536


class OutcomeLog:
    """Numbers outcomes from 1 and keeps the newest; `instance` marks the cursors it issues."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.rollout_id = ""
        self._outcomes: deque[Outcome] = deque(maxlen=_MAX_OUTCOMES)
        self._last_sequence = 0
        # The rollout and sequence of the newest cursor that came back.
        self._received = ("", 0)

    def follow(self, rollout_id: str) -> None:
        """Records this rollout from now on, none if empty; another rollout starts anew."""
        if rollout_id and rollout_id != self.rollout_id:
            self._outcomes.clear()
            self._last_sequence = 0
        self.rollout_id = rollout_id

    def record(self, rollout_id: str, outcome: Outcome) -> None:
        """Appends a finished request's outcome, unless it belongs to another or to no rollout."""
        if rollout_id and rollout_id == self.rollout_id:
            self._last_sequence += 1
            self._outcomes.append(replace(outcome, sequence=self._last_sequence))

    def page(self, rollout_id: str, cursor: Cursor, limit: int) -> OutcomePage:
        """At most `limit` outcomes after `cursor`, none if another rollout is followed."""
        after = 0
        if cursor.instance == self.instance:
            after = cursor.sequence
            self._received = (rollout_id, after)
        outcomes: tuple[Outcome, ...] = ()
        if rollout_id == self.rollout_id:
            outcomes = tuple(each for each in self._outcomes if each.sequence > after)[:limit]
        last = outcomes[-1].sequence if outcomes else after
        return OutcomePage(outcomes, Cursor(self.instance, last))

    @property
    def drained(self) -> bool:
        """Whether a cursor has confirmed every outcome of the rollout that is followed."""
        if not self.rollout_id or self._last_sequence == 0:
            return True
        rollout_id, sequence = self._received
        return rollout_id == self.rollout_id and sequence >= self._last_sequence
