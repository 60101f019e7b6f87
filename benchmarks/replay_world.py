"""The worlds in which `judgement` tries the rule that replays recorded requests."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from benchmarks.recorded_request import Population, RecordedRequest, Served, recorded_request
from benchmarks.simulated_fleet import Arrival, Service, Setting
from benchmarks.simulated_judge import Replayed

from aurora_inference.contract import Ending

# How much of a request's place in its population the time decides.
_TREND_SHARE = 0.6
_USUAL = Population()
# Of a request's steps by those of the stable draft: two drafts of one shape, on two busy cores.
_TIMING_NOISE = 0.08


@dataclass(frozen=True, slots=True)
class ReplayTraffic:
    """Requests of a population, drawn with replacement.

    `coin_requests`: a fair coin says which of the population's drafts is the candidate, anew after
    so many requests; 0: never. After the first `turns_after` requests the two change places; 0:
    never. `ease`, of a request's number and in [0, 1], says which requests come when.

    A step takes `step_seconds`, with the candidate `slowdown` times as long. A client gives up
    after an exponential time of `patience` seconds; 0: never. The candidate kills its inference, or
    raises an error, at the hardest share `kills` or `raises` of the requests. `fails`: the share
    that fails, by arm. `timed`: of how many of the candidate's requests the engine can tell what
    their steps would have taken with the stable draft, to some percent.
    """

    population: Population = _USUAL
    coin_requests: int = 0
    turns_after: int = 0
    ease: Callable[[int], float] | None = None
    step_seconds: float = 0.04
    slowdown: float = 1.0
    patience: float = 0.0
    kills: float = 0.0
    raises: float = 0.0
    fails: tuple[float, float] = (0.0, 0.0)
    timed: float = 0.0

    def __call__(self, draw: random.Random, arrival: Arrival, candidate: bool) -> Service:
        place = draw.random()
        if self.ease is not None:
            place += _TREND_SHARE * (self.ease(arrival.number) - place)
        request = recorded_request(self.population, int(place * self.population.size))
        drafts = (request.stable, request.candidate)
        if self._is_swapped(arrival):
            drafts = (request.candidate, request.stable)
        pace = self.step_seconds * (0.9 + 0.2 * draw.random())
        if candidate:
            pace *= self.slowdown
        service = self._served(draw, request, drafts[candidate], pace)
        if candidate and self.timed and draw.random() < self.timed:
            usual = pace / self.slowdown * draw.lognormvariate(0.0, _TIMING_NOISE)
            service = replace(
                service, step_time_us=int(pace * 1e6), stable_step_time_us=int(usual * 1e6)
            )
        if draw.random() < self.fails[candidate]:
            service = replace(service, ending="failed")
        elif candidate and place < self.raises:
            service = replace(service, ending="draft_failed")
        elif candidate and place < self.kills:
            service = replace(service, seconds=service.seconds / 2, kills=True)
        steps = (drafts[0].expected_steps, drafts[1].expected_steps)
        return replace(service, replayed=Replayed(request.domain, request.output_tokens, *steps))

    def _is_swapped(self, arrival: Arrival) -> bool:
        if self.coin_requests:
            coin = random.Random(f"{arrival.rollout}/{arrival.number // self.coin_requests}")
            return coin.random() < 0.5
        return self.turns_after > 0 and arrival.number >= self.turns_after

    def _served(
        self, draw: random.Random, request: RecordedRequest, served: Served, pace: float
    ) -> Service:
        seconds, part = served.steps * pace, 1.0
        ending: Ending = "completed"
        if self.patience and (patience := draw.expovariate(1 / self.patience)) < seconds:
            part, seconds, ending = patience / seconds, patience, "cancelled"
        return Service(
            seconds,
            int(served.drafted_tokens * part),
            int(served.accepted_tokens * part),
            ending,
            int(served.steps * pace / request.output_tokens * 1e6),
        )


def rising(number: int) -> float:
    return min(number / 600, 1.0)


def waves(number: int) -> float:
    """Slow waves, and a shift of the traffic every 150 requests."""
    return 0.5 + 0.2 * math.sin(number / 40) + (0.3 if number // 150 % 2 else -0.3)


# Of a step, so that at 10 requests a second some 400 are in flight.
_MANY_SECONDS = 1.2
_RISING = ReplayTraffic(ease=rising, step_seconds=_MANY_SECONDS)
# The short half gains, the long one, which has 85% of the tokens, loses.
_MIXED = Population(effect=0.06, long_effect=-0.02)
_COLLAPSING = Population(effect=0.01, collapsing=0.02)

# Nowhere is the candidate faster: it is the same draft, or the two can be exchanged.
REPLAY_NULL_WORLDS: Mapping[str, Setting] = {
    "alike": Setting(ReplayTraffic(Population(noise=0.0))),
    "noise": Setting(ReplayTraffic()),
    "noise, one inference": Setting(ReplayTraffic(), inferences=1),
    "greedy noise": Setting(ReplayTraffic(Population(greedy=True))),
    "few tokens": Setting(
        ReplayTraffic(Population(median_tokens=4.0, least_tokens=2, length_spread=0.4))
    ),
    "5 points by a coin": Setting(ReplayTraffic(Population(effect=0.05), coin_requests=1)),
    "waves and shifts": Setting(ReplayTraffic(ease=waves)),
    "30% faster, rising, 400 in flight": Setting(replace(_RISING, slowdown=0.7)),
    "60% faster, rising, 400 in flight": Setting(replace(_RISING, slowdown=0.4)),
    "cancelled where slower": Setting(
        ReplayTraffic(Population(effect=0.05), coin_requests=1, patience=2.0)
    ),
    "both fail": Setting(ReplayTraffic(fails=(0.1, 0.1))),
    "kills at the hardest 3%": Setting(ReplayTraffic(kills=0.03), inferences=4),
    "kills at the hardest 10%": Setting(ReplayTraffic(kills=0.1), inferences=4),
    "killed operator, lag, away": Setting(
        ReplayTraffic(ease=waves), lag_seconds=30.0, kill_share=0.05, away_share=0.2
    ),
    "inferences come and go": Setting(ReplayTraffic(ease=rising, slowdown=0.7), turnover=120),
}
# The candidate is slower in all, though faster on most requests.
HARMFUL: Mapping[str, Setting] = {
    "mixed_effects": Setting(ReplayTraffic(_MIXED)),
    "mixed_effects_in_flight": Setting(ReplayTraffic(_MIXED, step_seconds=_MANY_SECONDS)),
    "collapse": Setting(ReplayTraffic(_COLLAPSING)),
}
# Its steps take 10% longer; in large batches few are like one of the stable draft's.
SLOWER: Mapping[str, Setting] = {
    "slower": Setting(ReplayTraffic(slowdown=1.1, timed=1.0)),
    "slower_in_batches": Setting(ReplayTraffic(slowdown=1.1, timed=0.3)),
}
# It is faster in all, or for a while: no bound is claimed.
AMBIGUOUS: Mapping[str, Setting] = {
    "harmed_domain": Setting(ReplayTraffic(Population(effect=0.02, rare_effect=-0.1))),
    # For one user after the other: within forty requests, the next ones follow from the first.
    "users_in_a_row": Setting(ReplayTraffic(Population(effect=0.02), coin_requests=40)),
    "better_early": Setting(ReplayTraffic(Population(effect=0.03), turns_after=400)),
}


def replay_effect_population(points: int) -> Population:
    return Population(effect=points / 100)


def replay_effect_world(points: int) -> Setting:
    return Setting(ReplayTraffic(replay_effect_population(points)))


REPLAY_CRASH_LOOP = Setting(ReplayTraffic(kills=1.0), inferences=3)
REPLAY_RAISING = Setting(ReplayTraffic(raises=1.0))
