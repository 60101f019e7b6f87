"""Is the candidate accepted more often than the stable draft? A betting e-process over requests.

Each request i is given to the candidate (A = 1) with a known probability π, whatever happened
before, and then scores Y = accepted / drafted in [0, 1]. With any m̂ fixed before the request,

    ψ = (A − π) / (π (1 − π)) · (Y − m̂)

is an unbiased estimate of its effect, the candidate's Y less the stable's (inverse probability
weighting: Horvitz and Thompson 1952; used one observation at a time in Howard, Ramdas, McAuliffe
and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"). A gambler who
stakes λ against "the effect is nowhere above δ" multiplies his wealth by 1 + λ(ψ − δ), which under
that hypothesis is at most 1 on average, so his wealth is a nonnegative supermartingale
(Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"). The mean
over several gamblers is one too. By Ville's inequality (1939) it ever reaches 1/α with probability
at most α, however often one looks, stops, restarts or changes π.

The mirrored process bets on −ψ, against "the candidate is nowhere worse".

What a request without a plain score counts for, so that none of it can favour the candidate:

- a failed candidate request scores 0;
- a failed stable request scores the past mean m̂, so ψ = 0: scored 0 it would speak for the
  candidate. In the mirrored process it does score 0, like the candidate's: there the plain
  comparison is the fair one, and a fault that hits both arms alike is not the candidate's harm;
- a request that drafted nothing carries no information and is left out in both arms. That is sound
  because the engine decides whether to draft from its batch, not from a request's arm. Where there
  is no stable draft, the stable arm never drafts, and not drafting scores 0 in both arms instead.

One approximation is known: requests are read in the order in which they finish, so an arm that is
faster is seen earlier, by no more than the requests in flight at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from aurora_common.codec import Wire

Arm = Literal["stable", "candidate"]

# Fractions of the largest stake that cannot go bankrupt, log-spaced: the small ones find small
# effects, the large ones large effects soon. None is near 1: one request never decides.
STAKE_FRACTIONS = tuple(0.01 * 80 ** (k / 7) for k in range(8))

# What every gambler begins with.
_FAIR = (0.0,) * len(STAKE_FRACTIONS)
# A restart must not begin anew.
_REQUIRED = Wire(required=True)
# Twice the gamblers there are: one more must not make the stored statuses unreadable.
_WEALTH = Wire(required=True, max_items=32)
_ROUNDED = Wire(digits=4)

# The requests after which the confidence sequence of the effect is narrowest.
_TUNED_FOR_REQUESTS = 300
_CONFIDENCE_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished request of a rollout; `candidate_bps` / 10000 is π as its arm was drawn."""

    arm: Arm
    candidate_bps: int
    drafted_tokens: int
    accepted_tokens: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ArmMean:
    """The mean score of one arm's counted requests."""

    requests: Annotated[int, "How many.", _REQUIRED] = 0
    acceptance: Annotated[float, "The mean of their acceptance.", _REQUIRED] = 0.0

    def add(self, score: float) -> ArmMean:
        requests = self.requests + 1
        return ArmMean(requests, self.acceptance + (score - self.acceptance) / requests)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a rollout's judgement depends on; it survives a restart exactly.

    `log_wealth` and `log_harm_wealth` hold the natural logarithm of each gambler's wealth.
    `effect` is the mean of ψ and `effect_scatter` the sum of its squared deviations from it.
    """

    method: Annotated[Literal["per-request-betting/v1"], "The test by which it is judged."] = (
        "per-request-betting/v1"
    )
    stable: Annotated[ArmMean, "Those that the stable draft served.", _REQUIRED] = ArmMean()
    candidate: Annotated[ArmMean, "Those that the candidate served.", _REQUIRED] = ArmMean()
    log_wealth: Annotated[tuple[float, ...], "Of each gambler on better.", _WEALTH] = _FAIR
    log_harm_wealth: Annotated[tuple[float, ...], "Of each gambler on worse.", _WEALTH] = _FAIR
    effect: Annotated[float, "Running mean of the effect.", _REQUIRED] = 0.0
    effect_scatter: Annotated[float, "Sum of its squared deviations.", _REQUIRED] = 0.0

    @property
    def requests(self) -> Annotated[int, "How many requests were judged."]:
        return self.stable.requests + self.candidate.requests

    @property
    def log_e(self) -> Annotated[float, "Natural logarithm of the e-value for better.", _ROUNDED]:
        return _log_mean_exp(self.log_wealth)

    @property
    def log_harm(self) -> Annotated[float, "Natural logarithm of the e-value for worse.", _ROUNDED]:
        return _log_mean_exp(self.log_harm_wealth)

    @property
    def effect_bps(self) -> Annotated[int, "Estimated gain in acceptance; basis points."]:
        """Within what is possible: a few requests may estimate more."""
        return round(_possible(self.effect) * 10_000)

    @property
    def ci_bps(
        self,
    ) -> Annotated[
        tuple[int, int] | None, "Its 95% interval, asymptotic; absent before two requests."
    ]:
        interval = effect_interval(self)
        return interval and (round(interval[0] * 10_000), round(interval[1] * 10_000))

    @property
    def baseline(self) -> float:
        """m̂: the mean score so far, begun with one request at 0.5."""
        total = sum(arm.requests * arm.acceptance for arm in (self.stable, self.candidate))
        return min(max((0.5 + total) / (1 + self.requests), 0.0), 1.0)


def observe(
    evidence: Evidence,
    outcome: Outcome,
    *,
    min_effect: float = 0.0,
    without_stable: bool = False,
) -> Evidence:
    """The evidence once `outcome` is counted; the same where it carries no information.

    `min_effect` ≥ 0 is δ, the acceptance by which the candidate must be better; it stays the same
    for a whole rollout. `without_stable`: no stable draft is served in this rollout.
    """
    probability = outcome.candidate_bps / 10_000
    score = _score(outcome, without_stable=without_stable)
    if score is None or not 0 < probability < 1:
        return evidence
    chosen = 1.0 if outcome.arm == "candidate" else 0.0
    weight = (chosen - probability) / (probability * (1 - probability))
    baseline = evidence.baseline
    effect = weight * (score - baseline)
    # ψ lies between −loss and +gain; both are at least 1.
    loss = max(baseline / probability, (1 - baseline) / (1 - probability))
    gain = max((1 - baseline) / probability, baseline / (1 - probability))
    failed_stable = outcome.failed and outcome.arm == "stable"
    betted = replace(
        evidence,
        log_wealth=_bet(
            evidence.log_wealth,
            (0.0 if failed_stable else effect) - min_effect,
            largest_loss=loss + min_effect,
        ),
        log_harm_wealth=_bet(evidence.log_harm_wealth, -effect, largest_loss=gain),
    )
    return betted if failed_stable else _count(betted, outcome.arm, score, effect)


def effect_interval(evidence: Evidence) -> tuple[float, float] | None:
    """A 95% asymptotic confidence sequence of the mean effect; None for fewer than two requests.

    Valid at all times at once, but only asymptotically (Waudby-Smith, Arbour, Sinha, Kennedy and
    Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence sequences", eq. 2):
    it is shown to people and decides nothing. The e-process alone promotes.
    """
    n = evidence.requests
    if n < 2:
        return None
    log_term = -2 * math.log(_CONFIDENCE_ALPHA)
    tuning = (log_term + math.log(log_term) + 1) / _TUNED_FOR_REQUESTS
    spread = n * tuning + 1
    variance = evidence.effect_scatter / n
    width = math.sqrt(
        variance * 2 * spread / (n * n * tuning) * math.log(math.sqrt(spread) / _CONFIDENCE_ALPHA)
    )
    return _possible(evidence.effect - width), _possible(evidence.effect + width)


def _score(outcome: Outcome, *, without_stable: bool) -> float | None:
    """Y in [0, 1]; None where the request says nothing about its draft."""
    if outcome.failed:
        return 0.0
    if outcome.drafted_tokens <= 0:
        return 0.0 if without_stable else None
    return min(max(outcome.accepted_tokens / outcome.drafted_tokens, 0.0), 1.0)


def _bet(log_wealth: tuple[float, ...], payoff: float, *, largest_loss: float) -> tuple[float, ...]:
    """Each gambler stakes his fraction of 1 / largest_loss, so no factor falls below 0.2."""
    return tuple(
        wealth + math.log1p(fraction * max(payoff / largest_loss, -1.0))
        for wealth, fraction in zip(log_wealth, STAKE_FRACTIONS, strict=True)
    )


def _count(evidence: Evidence, arm: Arm, score: float, effect: float) -> Evidence:
    """Welford's update of the means, after the bets: the next request's m̂ may know this one."""
    deviation = effect - evidence.effect
    mean = evidence.effect + deviation / (evidence.requests + 1)
    return replace(
        evidence,
        stable=evidence.stable.add(score) if arm == "stable" else evidence.stable,
        candidate=evidence.candidate.add(score) if arm == "candidate" else evidence.candidate,
        effect=mean,
        effect_scatter=evidence.effect_scatter + deviation * (effect - mean),
    )


def _possible(effect: float) -> float:
    return min(max(effect, -1.0), 1.0)


def _log_mean_exp(logs: tuple[float, ...]) -> float:
    largest = max(logs)
    return largest + math.log(sum(math.exp(log - largest) for log in logs) / len(logs))
