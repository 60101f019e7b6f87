"""The worlds in which `judgement` tries the promotion rule."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from benchmarks.simulated_fleet import Arrival, Service, Setting

from aurora_inference.contract import Ending


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests as they would be under either draft.

    A request's acceptance is uniform in `base` ± `spread`, moved by `trend` (of its number), by its
    user and, per hundred tokens, by `length_effect`; within the request it rises by `slope`. A
    client gives up after an exponential time of `patience` seconds; 0: never.

    The candidate's: `effect` on acceptance (`long_effect` on answers of the upper half of lengths),
    `slowdown`, `lengthening` of answers, and the hardest share of requests at which it `kills` its
    inference, or `raises` an error. `fails`: the share of requests that fail, by arm.
    """

    base: float = 0.55
    spread: float = 0.2
    trend: Callable[[int], float] | None = None
    user_requests: int = 0
    tokens: tuple[int, int] = (40, 160)
    token_seconds: float = 0.02
    length_effect: float = 0.0
    slope: float = 0.0
    patience: float = 0.0
    effect: float = 0.0
    long_effect: float | None = None
    slowdown: float = 1.0
    lengthening: float = 1.0
    kills: float = 0.0
    raises: float = 0.0
    fails: tuple[float, float] = (0.0, 0.0)

    def __call__(self, draw: random.Random, arrival: Arrival, candidate: bool) -> Service:
        shortest, longest = self.tokens
        length, hardness = draw.random(), draw.random()
        tokens = shortest + int(length * (longest - shortest + 1))
        acceptance = self.base + self.spread * (2 * hardness - 1)
        acceptance += self.length_effect * tokens / 100
        if self.trend is not None:
            acceptance += self.trend(arrival.number)
        if self.user_requests:
            user = random.Random(arrival.number // self.user_requests)
            acceptance += 0.2 * (user.random() - 0.5)
        pace = self.token_seconds * (0.7 + 0.6 * draw.random())
        if candidate:
            long_effect = self.effect if self.long_effect is None else self.long_effect
            acceptance += long_effect if length >= 0.5 else self.effect
            pace *= self.slowdown
            # What is added comes last, and continues the slope.
            acceptance += self.slope * (self.lengthening - 1) / 2
            tokens = int(tokens * self.lengthening)
        return self._served(draw, candidate, hardness, acceptance, tokens, pace)

    def _served(
        self,
        draw: random.Random,
        candidate: bool,
        hardness: float,
        acceptance: float,
        tokens: int,
        pace: float,
    ) -> Service:
        seconds, part = tokens * pace, 1.0
        ending: Ending = "completed"
        if self.patience and (patience := draw.expovariate(1 / self.patience)) < seconds:
            part, seconds, ending = patience / seconds, patience, "cancelled"
        acceptance += self.slope * (part - 1) / 2
        drafted = int(0.8 * tokens * part)
        accepted = 0
        if drafted:
            acceptance = min(max(acceptance, 0.0), 1.0)
            noise = draw.gauss(0.0, math.sqrt(acceptance * (1 - acceptance) / drafted))
            accepted = int(drafted * (acceptance + noise) + draw.random())
        if draw.random() < self.fails[candidate]:
            ending = "failed"
        elif candidate and hardness < self.raises:
            ending = "draft_failed"
        return Service(
            seconds / 2 if candidate and hardness < self.kills else seconds,
            drafted,
            min(max(accepted, 0), drafted),
            ending,
            int(pace * 1e6),
            kills=candidate and hardness < self.kills,
        )


def rising(number: int) -> float:
    return 0.3 * min(number / 1000, 1.0) - 0.15


def falling(number: int) -> float:
    return -rising(number)


def waves(number: int) -> float:
    """Slow waves, and a shift of the traffic every 300 requests."""
    return 0.1 * math.sin(number / 40) + (0.15 if number // 300 % 2 else -0.15)


# Of a draft whose speed in traffic differs: 20 or 400 requests in flight.
_FEW, _MANY = 0.02, 0.4
_SLOW = Traffic(slowdown=2.0, patience=4.0)

# Nowhere is the candidate better: its acceptance is the stable draft's on every request.
NULL_WORLDS: Mapping[str, Setting] = {
    "alike": Setting(Traffic()),
    "alike, one inference": Setting(Traffic(), inferences=1),
    "hits and misses": Setting(Traffic(spread=0.5)),
    "few tokens": Setting(Traffic(tokens=(2, 6))),
    "waves and shifts": Setting(Traffic(trend=waves)),
    "correlated users": Setting(Traffic(user_requests=40)),
    "30% faster, rising": Setting(Traffic(trend=rising, slowdown=0.7, token_seconds=_MANY)),
    "30% slower, falling": Setting(Traffic(trend=falling, slowdown=1.3, token_seconds=_MANY)),
    "60% faster, rising, 400 in flight": Setting(
        Traffic(trend=rising, slowdown=0.4, token_seconds=_MANY), inferences=1
    ),
    "60% faster, rising, 4 inferences": Setting(
        Traffic(trend=rising, slowdown=0.4, token_seconds=_MANY), inferences=4
    ),
    "3 times slower, falling": Setting(Traffic(trend=falling, slowdown=3.0, token_seconds=0.1)),
    "without the stable draft": Setting(Traffic(), lacking_from=150),
    "cancelled alike": Setting(Traffic(patience=20.0)),
    "slower, cancelled where it falls": Setting(replace(_SLOW, slope=-0.4)),
    "slower, long answers cancelled": Setting(replace(_SLOW, length_effect=-0.2)),
    "faster, cancelled where it rises": Setting(replace(_SLOW, slowdown=0.5, slope=0.4)),
    "faster, best answers cancelled": Setting(replace(_SLOW, slowdown=0.3, length_effect=0.3)),
    "both fail": Setting(Traffic(fails=(0.1, 0.1))),
    "the stable draft fails": Setting(Traffic(fails=(0.2, 0.0))),
    "kills at the hardest 3%": Setting(Traffic(kills=0.03), inferences=4),
    "kills at the hardest 10%": Setting(Traffic(kills=0.1), inferences=4),
    "raises at the hardest 3%": Setting(Traffic(raises=0.03)),
    "raises at the hardest 10%": Setting(Traffic(raises=0.1)),
    "killed operator, lag, away": Setting(
        Traffic(trend=waves), lag_seconds=30.0, kill_share=0.05, away_share=0.2
    ),
    "inferences come and go": Setting(Traffic(trend=rising, slowdown=0.7), turnover=120),
}
# Better in the acceptance of requests, not in speed: judging by acceptance promotes it.
BEYOND_ACCEPTANCE: Mapping[str, Setting] = {
    # What is added to an answer is accepted more often; the rest as before.
    "longer_answers": Setting(Traffic(lengthening=1.2, slope=0.5)),
    # +6 points on the short half, -2 on the long one, which has 85% of the tokens.
    "mixed_effects": Setting(Traffic(tokens=(10, 800), effect=0.06, long_effect=-0.02)),
    # 3 tokens at 65% each instead of 5 at 70%: (.65 + .65^2 + .65^3) / 3 against .388.
    "shorter_drafts": Setting(Traffic(base=0.388, effect=0.061)),
}
EFFECTS = (1, 2, 5, 10, 20)


def effect_world(points: int) -> Setting:
    return Setting(Traffic(effect=points / 100))
