"""The round that finds what no event told: one deployment after the other, evenly in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aurora_operator.cluster.directory import Directory
from aurora_operator.cluster.kinds import Key

_ROUND_SECONDS = 600.0
_SHORTEST_SECONDS = 0.05
_LONGEST_SECONDS = 60.0
# The pulse is taken at least so often, whatever the pace of the round.
_PULSE_SECONDS = 5.0


def pace_seconds(deployments: int) -> float:
    """How long after one deployment the next is looked at, so that all are within ten minutes."""
    return min(_LONGEST_SECONDS, max(_SHORTEST_SECONDS, _ROUND_SECONDS / max(1, deployments)))


class Round:
    """Calls `look` for each deployment in turn, and `pulse` every few seconds."""

    def __init__(
        self, directory: Directory, *, look: Callable[[Key], None], pulse: Callable[[], None]
    ) -> None:
        self._directory = directory
        self._look = look
        self._pulse = pulse

    async def run(self) -> None:
        """Goes round until cancelled."""
        waiting: list[Key] = []
        due = time.monotonic()
        while True:
            self._pulse()
            if time.monotonic() >= due:
                waiting = waiting or list(self._directory)
                if waiting:
                    self._look(waiting.pop())
                due = time.monotonic() + pace_seconds(len(self._directory))
            await asyncio.sleep(min(_PULSE_SECONDS, max(0.0, due - time.monotonic())))
