"""Recorded requests as either of two drafts would serve them, scored by the trainer's judge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from aurora_trainer.judge.renewal import expected_steps

# Tokens drafted for each verify step.
DRAFTED = 4
# A request's mean acceptance; its positions scatter widely around that.
_BASE = NormalDist(0.62, 0.12)
_EASIEST, _HARDEST = 0.95, 0.05
_CONCENTRATION = 1.5
_RARE_DOMAIN_SHARE = 0.05
# Of greedy drafts: the share of positions at which they draft another token.
_REDRAWN = 0.2
# Above so many tokens are 85% of all tokens.
_LONG_TOKENS = 45


@dataclass(frozen=True, slots=True)
class Served:
    """A request with one draft: the judge's expected verify steps, and one run of it."""

    expected_steps: float
    steps: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    domain: str
    output_tokens: int
    stable: Served
    candidate: Served


@dataclass(frozen=True, slots=True)
class Population:
    """Requests of log-normal length, each as two drafts would serve it.

    Both drafts are accepted at each position as often as a common acceptance says, give or take
    `noise` (σ of the difference) of their own; greedy ones, which are accepted or not, disagree at
    a fifth of the positions. So without an effect the two can be exchanged: the candidate is not
    faster, E[1 − C/S] ≤ 0 and E[S − C] = 0 for the steps S and C that they take.

    `effect` is added to the candidate's mean acceptance: it takes away a share of all rejections,
    or of all acceptances. `long_effect` replaces it on answers of over 45 tokens, which have 85% of
    the tokens, `rare_effect` in a domain that has 5% of the requests. In the share `collapsing` of
    the requests nothing that the candidate drafts is accepted.
    """

    size: int = 4000
    noise: float = 0.08
    greedy: bool = False
    median_tokens: float = 55.0
    least_tokens: int = 8
    length_spread: float = 0.8
    effect: float = 0.0
    long_effect: float | None = None
    rare_effect: float | None = None
    collapsing: float = 0.0

    def effect_on(self, tokens: int, *, is_rare: bool) -> float:
        if is_rare and self.rare_effect is not None:
            return self.rare_effect
        if tokens > _LONG_TOKENS and self.long_effect is not None:
            return self.long_effect
        return self.effect


# Two populations: a process simulates one world after another.
@lru_cache(maxsize=8000)
def recorded_request(population: Population, place: int) -> RecordedRequest:
    """The request at a place in its population, the hardest first; always the same one."""
    draw = np.random.default_rng(place)
    log_tokens = math.log(population.median_tokens) + population.length_spread * draw.normal()
    tokens = max(population.least_tokens, round(math.exp(log_tokens)))
    base = _BASE.inv_cdf((place + 0.5) / population.size)
    base = min(max(base, _HARDEST), _EASIEST)
    is_rare = population.rare_effect is not None and draw.random() < _RARE_DOMAIN_SHARE
    effect = population.effect_on(tokens, is_rare=is_rare)
    if population.greedy:
        stable, candidate = _greedy(draw, tokens, base, effect)
    else:
        stable, candidate = _sampled(draw, tokens, base, effect, population.noise)
    if population.collapsing and draw.random() < population.collapsing:
        candidate = np.zeros(tokens)
    return RecordedRequest(
        "rare" if is_rare else "chat", tokens, _served(draw, stable), _served(draw, candidate)
    )


def saving(population: Population) -> float:
    """The share of all verify steps that the candidate saves."""
    requests = [recorded_request(population, place) for place in range(population.size)]
    stable = math.fsum(each.stable.expected_steps for each in requests)
    return 1 - math.fsum(each.candidate.expected_steps for each in requests) / stable


Acceptance = NDArray[np.float64]


def _greedy(
    draw: np.random.Generator, tokens: int, base: float, effect: float
) -> tuple[Acceptance, Acceptance]:
    """Of both drafts, [tokens] of 0 or 1; an effect is in what is drawn anew."""
    stable = draw.random(tokens) < base
    anew = draw.random(tokens) < base + effect / _REDRAWN
    candidate = np.where(draw.random(tokens) < _REDRAWN, anew, stable)
    return stable.astype(float), candidate.astype(float)


def _sampled(
    draw: np.random.Generator, tokens: int, base: float, effect: float, noise: float
) -> tuple[Acceptance, Acceptance]:
    """Of both drafts, [tokens] in [0, 1]."""
    common = draw.beta(_CONCENTRATION * base, _CONCENTRATION * (1 - base), tokens)
    own = common + noise / math.sqrt(2) * draw.normal(size=(2, tokens))
    stable, candidate = np.clip(own, 0.0, 1.0)
    if effect > 0:
        candidate += effect / (1 - _BASE.mean) * (1 - candidate)
    else:
        candidate += effect / _BASE.mean * candidate
    return stable, candidate


def _served(draw: np.random.Generator, acceptance: Acceptance) -> Served:
    """A run as the engine counts it: the tokens after a step's first rejected one are void."""
    hits = (draw.random(len(acceptance)) < acceptance).tolist()
    steps, drafted_tokens, accepted_tokens, position = 0, 0, 0, 0
    while position < len(hits):
        # The last token is the target's own.
        drafted = min(DRAFTED, len(hits) - position - 1)
        tried = hits[position : position + drafted]
        accepted = tried.index(False) if False in tried else drafted
        steps += 1
        drafted_tokens += drafted
        accepted_tokens += accepted
        position += accepted + 1
    return Served(expected_steps(acceptance, DRAFTED), steps, drafted_tokens, accepted_tokens)
