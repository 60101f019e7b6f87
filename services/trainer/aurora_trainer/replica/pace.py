"""How far each replica lags behind replica 0, and what it is given therefore."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aurora_trainer.replica.discovery import Place
from aurora_trainer.replica.shares import shares

# How much the last lag counts beside what was known before.
_NEWEST_PART = 0.5
# What it may cost to try a replica that lags too much again, as a part of all steps.
_TRIAL_PART = 0.05


@dataclass(slots=True)
class _Pace:
    # None: not known yet.
    lag: float | None = None
    # What the steps took that it has had no share of since.
    missed: float = 0.0
    # Its next answer takes longer than those to come: a connection and memory are made for it.
    first: bool = True


class Paces:
    """Divides batches by the lags of the steps before.

    A lag is how much later than replica 0 a replica ended, or would have ended, the same share, in
    the unit of the samples' costs. Who lags as much as a step takes without it gets nothing but
    the smallest share now and then, for links and machines may become faster.
    """

    def __init__(self) -> None:
        self._known: dict[Place, _Pace] = {}

    def is_first(self, place: Place) -> bool:
        """Whether its next share is its first, or the first since it failed."""
        return place not in self._known or self._known[place].first

    def keep(self, places: Collection[Place]) -> None:
        """Forgets every other place."""
        self._known = {place: pace for place, pace in self._known.items() if place in places}

    def divided(
        self, costs: Sequence[float], places: Sequence[Place]
    ) -> tuple[tuple[int, ...], dict[Place, tuple[int, ...]]]:
        """The numbers of replica 0's samples, and of those of each place that gets any."""
        lags = [self._known.get(place, _Pace()).lag or 0.0 for place in places]
        own, *others = shares(costs, (0.0, *lags), trial=self._trial(places))
        own_cost = sum(costs[number] for number in own)
        given = {place: part for place, part in zip(places, others, strict=True) if part}
        for place in places:
            if place in self._known and place not in given:
                self._known[place].missed += own_cost
        return own, given

    def answered(self, place: Place, lag: float) -> None:
        """It ended its share so late; of a first share that says nothing."""
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
        """It was so late when nobody waited any more."""
        self._known[place] = _Pace(lag, first=False)

    def failed(self, place: Place) -> None:
        """It may be another process that answers next."""
        self._known.setdefault(place, _Pace()).first = True

    def _trial(self, places: Sequence[Place]) -> int | None:
        """The share of whoever is due to be tried again."""
        for number, place in enumerate(places, start=1):
            pace = self._known.get(place, _Pace())
            if pace.missed > 0 and (pace.lag or 0.0) <= _TRIAL_PART * pace.missed:
                return number
        return None
