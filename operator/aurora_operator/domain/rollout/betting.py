"""Bets on the effect of a candidate, one request at a time.

Each request is given to the candidate (A = 1) with a known probability π, whatever happened before,
and then scores Y in [0, 1]. With any m̂ fixed before the request,

    ψ = (A − π) / (π (1 − π)) · (Y − m̂)

is an unbiased estimate of its effect, the candidate's Y less the stable's (inverse probability
weighting: Horvitz and Thompson 1952; used one observation at a time in Howard, Ramdas, McAuliffe
and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"). A gambler who
stakes λ against "the effect is nowhere above δ" multiplies his wealth by 1 + λ(ψ − δ), which under
that hypothesis is at most 1 on average, so his wealth is a nonnegative supermartingale
(Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"). The mean
over several gamblers is one too. By Ville's inequality (1939) it ever reaches 1/α with probability
at most α, however often one looks, stops, restarts or changes π.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from aurora_common.codec import Wire
from aurora_operator.domain.rollout.outcome import Outcome

# Fractions of the largest stake that cannot go bankrupt, log-spaced: the small ones find small
# effects, the large ones large effects soon. None is near 1: one request never decides.
STAKE_FRACTIONS = tuple(0.01 * 80 ** (k / 7) for k in range(8))

# The natural logarithm of each gambler's wealth before the first bet.
FAIR = (0.0,) * len(STAKE_FRACTIONS)

# A restart must not begin anew. Twice the gamblers there are: with one more, statuses that are
# already stored must stay readable.
REQUIRED = Wire(required=True)
WEALTH = Wire(required=True, max_items=32)
ROUNDED = Wire(digits=4)


@dataclass(frozen=True, slots=True)
class Effect:
    """ψ of one request; before it was served it could be anything from −loss to +gain."""

    value: float
    loss: float
    gain: float


def effect_of(outcome: Outcome, score: float, baseline: float) -> Effect | None:
    """ψ of a request that scored Y = `score`, with m̂ = `baseline`; None if π is 0 or 1."""
    probability = outcome.candidate_bps / 10_000
    if not 0 < probability < 1:
        return None
    chosen = 1.0 if outcome.arm == "candidate" else 0.0
    weight = (chosen - probability) / (probability * (1 - probability))
    return Effect(
        weight * (score - baseline),
        # Both are at least 1 if the baseline is a score.
        loss=max(baseline / probability, (1 - baseline) / (1 - probability)),
        gain=max((1 - baseline) / probability, baseline / (1 - probability)),
    )


def past_mean(total: float, requests: int) -> float:
    """m̂: the mean of earlier scores, begun with one request at 0.5."""
    return min(max((0.5 + total) / (1 + requests), 0.0), 1.0)


def bet(
    log_wealth: tuple[float, ...],
    payoff: float,
    *,
    largest_loss: float,
    fractions: tuple[float, ...] = STAKE_FRACTIONS,
) -> tuple[float, ...]:
    """Each gambler stakes his fraction of 1 / largest_loss, so none loses all."""
    return tuple(
        wealth + math.log1p(fraction * max(payoff / largest_loss, -1.0))
        for wealth, fraction in zip(log_wealth, fractions, strict=True)
    )


def log_e_value(log_wealth: tuple[float, ...]) -> float:
    """The natural logarithm of the gamblers' mean wealth."""
    largest = max(log_wealth)
    return largest + math.log(sum(math.exp(log - largest) for log in log_wealth) / len(log_wealth))


def log_threshold(alpha: str) -> float:
    """log(1/α), which the logarithm of an e-value must reach."""
    return -math.log(float(alpha))


def log_share(number: int) -> float:
    """What the threshold of test `number`, from 1, is above that of α.

    It has α / (number (number + 1)): all tests together, however many, have α.
    """
    return math.log(number * (number + 1))
