"""What a candidate must not make worse while it is accepted more often.

Each request gets a score in [0, 1]; lower is better, and its scale depends on earlier requests
only. The guardrail bets on harm: that the candidate's mean score exceeds the stable draft's by more
than a margin. If there is no such harm, the probability that it ever rolls back is at most α (see
`betting`). A guardrail also holds back a promotion while its estimate exceeds the margin, which
cannot make a false promotion more likely. If nothing is scored it does neither: an engine that does
not measure the quantity blocks nothing.

`tpot` is the time per output token, `ttft` that from admission to the first token, both relative to
the mean of earlier requests in both arms. They are capped at twice that mean, so that the score is
bounded and one outlier cannot move the scale; the hypothesis is about means of such capped times. A
cancelled request has the times of what it was served. The first request, failed ones and those
without the time have no score: those of a single token have no `tpot`, which cannot favour the
candidate, since a draft does not change the distribution of the text. A candidate that fails
instead of being slow is caught by its acceptance rate, where a failure scores 0.

Of a pair of blocks the difference of both scores is bet on, as in `switchback`.

Requests of both arms decode in one batch, whose steps pay for both drafts. The native engine leaves
the proposals of other drafts out of a request's time per token, so that `tpot` is not diluted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

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
from aurora_operator.domain.rollout.outcome import Arm, Block, Outcome, Pair
from aurora_operator.domain.rollout.switchback import bet_on_pair

MAX_GUARDRAILS = 16

# What a score knows of earlier requests; empty before the first.
Memory = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Guardrail:
    """`score` gives None if the request says nothing, and the memory for the next request.

    `harm` is the reason of a rollback. `margin_bps` is the default. A score of 1 stands for `unit`
    in the margin's units. Calibrate the margin by simulation: how often does it hold back a draft
    that does no harm?
    """

    meaning: str
    harm: str
    margin_bps: int
    unit: float
    score: Callable[[Outcome, Memory], tuple[float | None, Memory]]


def time_per_output_token(outcome: Outcome, memory: Memory) -> tuple[float | None, Memory]:
    return _relative(outcome.time_per_output_token_us, outcome, memory)


def time_to_first_token(outcome: Outcome, memory: Memory) -> tuple[float | None, Memory]:
    return _relative(outcome.time_to_first_token_us, outcome, memory)


def _relative(time: int, outcome: Outcome, memory: Memory) -> tuple[float | None, Memory]:
    """A time by twice the mean so far; `memory` is that mean and its count."""
    if outcome.ending == "failed" or time <= 0:
        return None, memory
    if not memory:
        return None, (float(time), 1.0)
    mean, count = memory
    score = min(time / (2 * mean), 1.0)
    return score, (mean + (2 * mean * score - mean) / (count + 1), count + 1)


# By simulation: with times of equal distribution (log-normal, σ = 0.5) a margin of 1000 holds back
# 12% of candidates after 300 requests, 5% after 500 and 0.2% after 1000; one of 500 still 7%.
# Times to the first token vary more, with the prompts: with σ = 1 a margin of 2000 holds back 2%
# after 300 requests, one of 1000 18%.
GUARDRAILS: Mapping[str, Guardrail] = {
    "tpot": Guardrail(
        meaning="the time per output token, relative to the stable draft's",
        harm="TimePerOutputTokenHarm",
        margin_bps=1000,
        unit=2.0,
        score=time_per_output_token,
    ),
    "ttft": Guardrail(
        meaning="the time from admission to the first token, relative to the stable draft's",
        harm="TimeToFirstTokenHarm",
        margin_bps=2000,
        unit=2.0,
        score=time_to_first_token,
    ),
}


@dataclass(frozen=True, slots=True)
class GuardrailState:
    """One guardrail in a rollout: its terms and what was measured."""

    name: Annotated[str, "As in spec.rollout.guardrails."]
    margin_bps: Annotated[int, "How much worse the candidate may be; basis points."]
    requests: Annotated[int, "How many requests, or pairs of blocks, were scored.", REQUIRED] = 0
    mean_score: Annotated[float, "Mean of their scores.", REQUIRED] = 0.0
    effect: Annotated[float, "Running mean of the effect.", REQUIRED] = 0.0
    log_harm_wealth: Annotated[tuple[float, ...], "Log wealth of each gambler on harm.", WEALTH] = (
        FAIR
    )
    memory: Annotated[
        Memory,
        "What its score knows of earlier requests.",
        Wire(required=True, max_items=8),
    ] = ()

    @property
    def log_harm(self) -> Annotated[float, "Natural logarithm of the e-value for harm.", ROUNDED]:
        return log_e_value(self.log_harm_wealth)

    @property
    def effect_bps(self) -> Annotated[int, "Estimated harm; basis points."]:
        """At least -10000, although a few requests may estimate less than is possible."""
        return max(round(self.effect * 10_000), -10_000)

    @property
    def holds_back(self) -> bool:
        """Whether the estimate is above the margin."""
        return self.name in GUARDRAILS and self.effect * 10_000 > self.margin_bps

    def observe(self, outcome: Outcome) -> GuardrailState:
        """The state once `outcome` is counted."""
        guardrail = GUARDRAILS.get(self.name)
        # One that only another version of the operator knows stays as it is.
        if guardrail is None:
            return self
        score, memory = guardrail.score(outcome, self.memory)
        baseline = past_mean(self.requests * self.mean_score, self.requests)
        found = None if score is None else effect_of(outcome, score, baseline)
        if score is None or found is None:
            return replace(self, memory=memory)
        margin = self.margin_bps / 10_000 / guardrail.unit
        wealth = bet(self.log_harm_wealth, found.value - margin, largest_loss=found.loss + margin)
        return self._counted(score, found.value * guardrail.unit, wealth, memory)

    def observe_pair(self, pair: Pair) -> GuardrailState:
        """The state once a pair of blocks is counted."""
        guardrail = GUARDRAILS.get(self.name)
        if guardrail is None:
            return self
        stable, memory = guardrail.score(_whole(pair.stable, "stable"), self.memory)
        candidate, _ = guardrail.score(_whole(pair.candidate, "candidate"), self.memory)
        _, memory = guardrail.score(_whole(pair.candidate, "candidate"), memory)
        if stable is None or candidate is None:
            return replace(self, memory=memory)
        difference = candidate - stable
        margin = self.margin_bps / 10_000 / guardrail.unit
        wealth = bet_on_pair(self.log_harm_wealth, difference - margin)
        mean_score = (stable + candidate) / 2
        return self._counted(mean_score, difference * guardrail.unit, wealth, memory)

    def _counted(
        self, score: float, effect: float, wealth: tuple[float, ...], memory: Memory
    ) -> GuardrailState:
        requests = self.requests + 1
        return replace(
            self,
            requests=requests,
            mean_score=self.mean_score + (score - self.mean_score) / requests,
            effect=self.effect + (effect - self.effect) / requests,
            log_harm_wealth=wealth,
            memory=memory,
        )


def _whole(block: Block, arm: Arm) -> Outcome:
    """What a guardrail may score of a block: all of its requests as one."""
    return Outcome(
        arm,
        0,
        block.drafted_tokens,
        block.accepted_tokens,
        time_per_output_token_us=block.time_per_output_token_us,
        time_to_first_token_us=block.time_to_first_token_us,
    )


def guardrail_state(name: str, margin_bps: int | None) -> GuardrailState:
    """A guardrail at the start of a rollout; without a margin it has its default."""
    return GuardrailState(name, GUARDRAILS[name].margin_bps if margin_bps is None else margin_bps)


def harm(states: Sequence[GuardrailState], threshold: float) -> str | None:
    """Why to roll back, if any guardrail's log harm reaches the threshold."""
    for state in states:
        if state.name in GUARDRAILS and state.log_harm >= threshold:
            return GUARDRAILS[state.name].harm
    return None
