"""Is the candidate accepted more often than the stable draft? A betting e-process over requests.

A request scores Y = accepted / drafted in [0, 1]. `betting` has the test: its gamblers stake
against "the candidate is nowhere better by more than δ". The mirrored process bets on −ψ, against
"the candidate is nowhere worse".

What a request without a plain score counts for, so that none of it can favour the candidate:

- a failed candidate request scores 0;
- a failed stable request scores the past mean m̂, so ψ = 0: scored 0 it would speak for the
  candidate. In the mirrored process it does score 0, like the candidate's: there the plain
  comparison is the fair one, and a fault that hits both arms alike is not the candidate's harm;
- a request that drafted nothing carries no information and is left out in both arms. That is sound
  because the engine decides whether to draft from its batch, not from a request's arm. If there is
  no stable draft, the stable arm never drafts, and not drafting scores 0 in both arms instead.

One approximation is known: requests are read in the order in which they finish, so an arm that is
faster is seen earlier, by no more than the requests in flight at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from aurora_common.codec import Wire
from aurora_operator.domain.rollout.betting import (
    FAIR,
    REQUIRED,
    ROUNDED,
    WEALTH,
    bet,
    effect_of,
    log_e_value,
    past_mean,
)
from aurora_operator.domain.rollout.guardrail import MAX_GUARDRAILS, GuardrailState
from aurora_operator.domain.rollout.outcome import Arm, Outcome

# The requests after which the confidence sequence of the effect is narrowest.
_TUNED_FOR_REQUESTS = 300
_CONFIDENCE_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class ArmMean:
    """The mean score of one arm's counted requests."""

    requests: Annotated[int, "How many were counted.", REQUIRED] = 0
    acceptance: Annotated[float, "Their mean acceptance rate.", REQUIRED] = 0.0

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
    stable: Annotated[ArmMean, "Requests that the stable draft served.", REQUIRED] = ArmMean()
    candidate: Annotated[ArmMean, "Requests that the candidate served.", REQUIRED] = ArmMean()
    log_wealth: Annotated[tuple[float, ...], "Log wealth of each gambler on better.", WEALTH] = FAIR
    log_harm_wealth: Annotated[
        tuple[float, ...], "Log wealth of each gambler on worse.", WEALTH
    ] = FAIR
    effect: Annotated[float, "Running mean of the effect.", REQUIRED] = 0.0
    effect_scatter: Annotated[float, "Sum of its squared deviations.", REQUIRED] = 0.0
    # None in a rollout that an earlier operator began.
    guardrails: Annotated[
        tuple[GuardrailState, ...],
        "What the candidate must not make worse.",
        Wire(max_items=MAX_GUARDRAILS),
    ] = ()

    @property
    def requests(self) -> Annotated[int, "How many requests were judged."]:
        return self.stable.requests + self.candidate.requests

    @property
    def log_e(self) -> Annotated[float, "Natural logarithm of the e-value for better.", ROUNDED]:
        return log_e_value(self.log_wealth)

    @property
    def log_harm(self) -> Annotated[float, "Natural logarithm of the e-value for worse.", ROUNDED]:
        return log_e_value(self.log_harm_wealth)

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
    def held_back_by(self) -> tuple[str, ...]:
        """The guardrails whose estimate is above their margin."""
        return tuple(guardrail.name for guardrail in self.guardrails if guardrail.holds_back)

    @property
    def baseline(self) -> float:
        """m̂: the mean score so far, begun with one request at 0.5."""
        total = sum(arm.requests * arm.acceptance for arm in (self.stable, self.candidate))
        return past_mean(total, self.requests)


def observe(
    evidence: Evidence,
    outcome: Outcome,
    *,
    min_effect: float = 0.0,
    without_stable: bool = False,
) -> Evidence:
    """The evidence once `outcome` is counted; the same if it carries no information.

    `min_effect` ≥ 0 is δ, the acceptance by which the candidate must be better; it stays the same
    for a whole rollout. `without_stable`: no stable draft is served in this rollout.
    """
    guardrails = tuple(guardrail.observe(outcome) for guardrail in evidence.guardrails)
    evidence = replace(evidence, guardrails=guardrails)
    score = _score(outcome, without_stable=without_stable)
    found = None if score is None else effect_of(outcome, score, evidence.baseline)
    if score is None or found is None:
        return evidence
    failed_stable = outcome.failed and outcome.arm == "stable"
    betted = replace(
        evidence,
        log_wealth=bet(
            evidence.log_wealth,
            (0.0 if failed_stable else found.value) - min_effect,
            largest_loss=found.loss + min_effect,
        ),
        log_harm_wealth=bet(evidence.log_harm_wealth, -found.value, largest_loss=found.gain),
    )
    return betted if failed_stable else _count(betted, outcome.arm, score, found.value)


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
    """Y in [0, 1]; None if the request says nothing about its draft."""
    if outcome.failed:
        return 0.0
    if outcome.drafted_tokens <= 0:
        return 0.0 if without_stable else None
    return min(max(outcome.accepted_tokens / outcome.drafted_tokens, 0.0), 1.0)


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
