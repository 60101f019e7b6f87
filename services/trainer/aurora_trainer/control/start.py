"""Which weights training goes on from after traffic has changed."""

from __future__ import annotations

from collections.abc import Mapping

# Of the newest requests, which say what traffic is like now.
RECENT_TRAJECTORIES = 16
# By how much more another draft must be accepted: with so few requests less may be chance, and its
# weights know less of what was learned since.
_LEAST_LEAD = 0.02


def better_start(current: float, others: Mapping[str, float]) -> str | None:
    """The draft of which clearly most is accepted; None: to go on with the current weights.

    `current`, `others`: mean acceptance on the same recent trajectories.
    """
    best = max(others, key=lambda name: (others[name], name), default=None)
    return None if best is None or others[best] < current + _LEAST_LEAD else best
