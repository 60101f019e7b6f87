"""Divides work by how far each replica lags behind replica 0."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aurora_trainer.replica.discovery import Place
from aurora_trainer.replica.shares import shares

# Weight of the newest lag in the running estimate.
_NEWEST_PART = 0.5
# Fraction of all step time that may go into retrying replicas that lag too much.
_TRIAL_PART = 0.05


@dataclass(slots=True)
class _Pace:
    # None: unknown yet.
    lag: float | None = None
    # Cost of the steps since its last share.
    missed: float = 0.0
    # Its next answer is the first, which takes longer: connection and memory are set up for it.
    first: bool = True


class Paces:
    """Divides batches by the lags observed in earlier steps.

    A lag is how much later than replica 0 a replica finished, or would have finished, the same
    share, in the unit of the samples' costs. A replica that lags by a whole step or more gets only
    the smallest share now and then, to notice if its link or machine has become faster.
    """

    def __init__(self) -> None:
        self._known: dict[Place, _Pace] = {}

    def is_first(self, place: Place) -> bool:
        """Whether its next share is its first ever, or its first since it failed."""
        return place not in self._known or self._known[place].first

    def keep(self, places: Collection[Place]) -> None:
        """Forgets every other place."""
        self._known = {place: pace for place, pace in self._known.items() if place in places}

    def divided(
        self, costs: Sequence[float], places: Sequence[Place]
    ) -> tuple[tuple[int, ...], dict[Place, tuple[int, ...]]]:
        """Indices of replica 0's samples, and of each other place's that gets any."""
        lags = [self._known.get(place, _Pace()).lag or 0.0 for place in places]
        own, *others = shares(costs, (0.0, *lags), trial=self._trial(places))
        own_cost = sum(costs[number] for number in own)
        given = {place: part for place, part in zip(places, others, strict=True) if part}
        for place in places:
            if place in self._known and place not in given:
                self._known[place].missed += own_cost
        return own, given

    def answered(self, place: Place, lag: float) -> None:
        """Records the lag of a finished share; that of a first share is ignored."""
        pace = self._known.setdefault(place, _Pace())
        if pace.first:
            pace.first = False
            return
        if pace.lag is None or pace.missed > 0:
            pace.lag = lag
        else:
            pace.lag += _NEWEST_PART * (lag - pace.lag)
        pace.missed = 0.0

    def given_up(self, place: Place, lag: float) -> None:
        """Records the lag at which replica 0 stopped waiting."""
        self._known[place] = _Pace(lag, first=False)

    def failed(self, place: Place) -> None:
        """Treats its next share as a first: another process may answer."""
        self._known.setdefault(place, _Pace()).first = True

    def _trial(self, places: Sequence[Place]) -> int | None:
        """The share of a replica that is due for a retry."""
        for number, place in enumerate(places, start=1):
            pace = self._known.get(place, _Pace())
            if pace.missed > 0 and (pace.lag or 0.0) <= _TRIAL_PART * pace.missed:
                return number
        return None
