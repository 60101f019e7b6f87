"""Which ended rollouts are still to be told of, oldest first: each at least once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aurora_operator.domain.plan.observation import Observation, Sent
from aurora_operator.domain.status.deployment import Status, Verdict


def with_unsent(before: Status, after: Status, observed: Observation) -> Status:
    """The status with what has ended since counted, and what was sent no longer."""
    ended = _ended(before, after)
    return replace(
        after,
        unrecorded=_left(after.history, after.unrecorded + ended, observed.records),
        unannounced=_left(after.history, after.unannounced + ended, observed.announcements),
    )


def _ended(before: Status, after: Status) -> int:
    if not before.history:
        return len(after.history)
    return after.history.index(before.history[0]) if before.history[0] in after.history else 0


def _left(history: Sequence[Verdict], count: int, sent: Sent | None) -> int:
    """How many of the newest are left; none where nothing can be sent to."""
    if sent is None:
        return 0
    count = min(count, len(history))
    while count and history[count - 1].key in sent:
        count -= 1
    return count
