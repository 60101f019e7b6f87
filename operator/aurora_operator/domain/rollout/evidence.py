"""Is the candidate accepted more often than the stable draft? A betting e-process over requests.

A request scores Y = accepted / drafted in [0, 1]. `betting` has the test: its gamblers stake
against "the candidate is nowhere better by more than δ". The mirrored process bets on −ψ, against
"the candidate is nowhere worse".

Requests are counted in the order in which they were admitted, under the arm that was drawn for
them, whatever became of them (intention to treat: Hollis and Campbell 1999, BMJ 319:670). One that
was not completed has no full score, and a draft may have had a part in that: a slow one is
cancelled where it is slowest. So it counts for the worst that it can have been:

| what became of it | candidate: better, worse | stable: better, worse | in the means |
|---|---|---|---|
| completed, something drafted | Y, Y | Y, Y | yes |
| completed or cancelled, nothing drafted | left out | left out | |
| cancelled | 0, 0 | 1, 0 | no |
| failed, draft failed, timed out, lost | 0, 0 | 1, 0 | the candidate's, as 0 |

"Better" uses the bounds that hold whatever the missing score is (Manski 1990, "Nonparametric bounds
on treatment effects"), so that nothing a draft does to a request can favour the candidate; c% of
requests cancelled therefore hide an effect of c points. "Worse" scores both arms alike, and what
hits both alike is not the candidate's harm (worst-rank scores: Lachin 1999, Controlled Clinical
Trials 20:408).

A request that drafted nothing carries no information, since the engine decides whether to draft
from its batch, not from a request's arm, and a draft cannot have made anybody cancel before it
drafted. If there is no stable draft, the stable arm never drafts; then it scores 0 whatever became
of it, and so does not drafting in the other arm.

Between inferences the order is that of reading, each one's own being kept. Engines whose drafts
alternate tell of pairs of blocks instead: `switchback` has how these count.
"""

from __future__ import annotations

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
from aurora_operator.domain.rollout.interval import half_width, welford
from aurora_operator.domain.rollout.outcome import Arm, Outcome, Pair
from aurora_operator.domain.rollout.path import EvidencePath, sampled
from aurora_operator.domain.rollout.replay import Replay
from aurora_operator.domain.rollout.step_cost import StepCost
from aurora_operator.domain.rollout.switchback import bet_on_pair, scores

_CONFIDENCE_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class ArmMean:
    """The mean score of one arm's counted requests."""

    requests: Annotated[int, "How many were counted.", REQUIRED] = 0
    acceptance: Annotated[float, "Their mean acceptance rate.", REQUIRED] = 0.0

    def add(self, score: float, *, of: int = 1) -> ArmMean:
        """With so many more requests of that mean score."""
        requests = self.requests + of
        if not of:
            return self
        return ArmMean(requests, self.acceptance + (score - self.acceptance) * of / requests)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a rollout's judgement depends on; it survives a restart exactly.

    `log_wealth` and `log_harm_wealth` hold the natural logarithm of each gambler's wealth.
    `effect` is the mean of ψ and `effect_scatter` the sum of its squared deviations from it.
    """

    method: Annotated[
        Literal["per-request-betting/v1", "switchback-betting/v1"],
        "The test by which it is judged.",
    ] = "per-request-betting/v1"
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
    crashes: Annotated[int, "How often an inference that had the candidate died."] = 0
    pairs: Annotated[
        int | None, "How many pairs of time blocks were judged, if drafts alternate."
    ] = None
    replay: Annotated[
        Replay | None, "What replaying recorded requests has shown, if that decides."
    ] = None
    path: Annotated[
        EvidencePath | None, "How the evidence grew, if live requests alone decide."
    ] = None
    step_cost: Annotated[
        StepCost | None, "What a step with it costs, if the engine measures that."
    ] = None

    @property
    def requests(self) -> Annotated[int, "How many requests were judged."]:
        return self.stable.requests + self.candidate.requests

    @property
    def units(self) -> int:
        """What the effect is a mean of: pairs of blocks, else requests."""
        return self.pairs or self.requests

    @property
    def log_e(self) -> Annotated[float, "Natural logarithm of the e-value for better.", ROUNDED]:
        return log_e_value(self.log_wealth)

    @property
    def promoting_log_e(
        self,
    ) -> Annotated[float, "Natural logarithm of the e-value that promotes.", ROUNDED]:
        return self.log_e if self.replay is None else self.replay.log_e

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
    if evidence.guardrails:
        guardrails = tuple(guardrail.observe(outcome) for guardrail in evidence.guardrails)
        evidence = replace(evidence, guardrails=guardrails)
    if outcome.stable_step_time_us and outcome.arm == "candidate":
        cost = evidence.step_cost or StepCost()
        evidence = replace(evidence, step_cost=cost.observe(outcome))
    scores = _scores(outcome, without_stable=without_stable)
    if scores is None:
        return evidence
    baseline = evidence.baseline
    better = effect_of(outcome, scores.better, baseline)
    worse = better if scores.worse == scores.better else effect_of(outcome, scores.worse, baseline)
    if better is None or worse is None:
        return evidence
    betted = replace(
        evidence,
        log_wealth=bet(
            evidence.log_wealth,
            better.value - min_effect,
            largest_loss=better.loss + min_effect,
        ),
        log_harm_wealth=bet(evidence.log_harm_wealth, -worse.value, largest_loss=worse.gain),
    )
    if not scores.in_means:
        return betted
    return _count(betted, outcome.arm, scores.better, better.value)


def observe_pair(evidence: Evidence, pair: Pair, *, min_effect: float = 0.0) -> Evidence:
    """The evidence once a pair of blocks is counted; `min_effect` as in `observe`."""
    if evidence.guardrails:
        guardrails = tuple(guardrail.observe_pair(pair) for guardrail in evidence.guardrails)
        evidence = replace(evidence, guardrails=guardrails)
    found = scores(pair)
    if found is None:
        return evidence
    pairs = evidence.pairs or 0
    betted = replace(
        evidence,
        log_wealth=bet_on_pair(evidence.log_wealth, found.better - min_effect),
        log_harm_wealth=bet_on_pair(evidence.log_harm_wealth, -found.worse),
    )
    return replace(
        _with_effect(betted, found.candidate - found.stable, units=pairs),
        method="switchback-betting/v1",
        stable=evidence.stable.add(found.stable, of=pair.stable.requests),
        candidate=evidence.candidate.add(found.candidate, of=pair.candidate.requests),
        pairs=pairs + 1,
    )


def effect_interval(evidence: Evidence) -> tuple[float, float] | None:
    """The effect's 95% confidence sequence (see `interval`); None before two requests or pairs."""
    width = half_width(evidence.effect_scatter, evidence.units, _CONFIDENCE_ALPHA)
    if width is None:
        return None
    return _possible(evidence.effect - width), _possible(evidence.effect + width)


@dataclass(frozen=True, slots=True)
class _Scores:
    """Y in [0, 1] as either process counts it, and whether it is in the means shown."""

    better: float
    worse: float
    in_means: bool = True


def _scores(outcome: Outcome, *, without_stable: bool) -> _Scores | None:
    """The rows of the table above; None if the request says nothing about its draft."""
    if without_stable and outcome.arm == "stable":
        return _Scores(0.0, 0.0)
    drafted = outcome.drafted_tokens > 0
    match outcome.ending, outcome.arm:
        case "completed", _ if drafted:
            score = min(max(outcome.accepted_tokens / outcome.drafted_tokens, 0.0), 1.0)
            return _Scores(score, score)
        case "completed" | "cancelled", _ if not drafted:
            return _Scores(0.0, 0.0) if without_stable else None
        case "cancelled", "candidate":
            return _Scores(0.0, 0.0, in_means=False)
        case _, "candidate":
            return _Scores(0.0, 0.0)
        case _:
            return _Scores(1.0, 0.0, in_means=False)


def _count(evidence: Evidence, arm: Arm, score: float, effect: float) -> Evidence:
    """The means, after the bets: the next request's m̂ may know this one."""
    counted = _with_effect(evidence, effect, units=evidence.requests)
    return replace(
        counted,
        stable=evidence.stable.add(score) if arm == "stable" else evidence.stable,
        candidate=evidence.candidate.add(score) if arm == "candidate" else evidence.candidate,
    )


def _with_effect(evidence: Evidence, effect: float, *, units: int) -> Evidence:
    """The evidence with one more effect in its mean, which is that of `units` so far."""
    mean, scatter = welford(evidence.effect, evidence.effect_scatter, units, effect)
    counted = replace(evidence, effect=mean, effect_scatter=scatter)
    if evidence.replay is not None:
        return counted
    path = sampled(evidence.path, units + 1, evidence.log_wealth, evidence.log_harm_wealth)
    return replace(counted, path=path)


def _possible(effect: float) -> float:
    return min(max(effect, -1.0), 1.0)
