"""What a verify step costs with the candidate, beside the stable draft.

Each live request that the candidate served has the time of its steps with the candidate alone, and
of the same steps had the stable draft proposed as much: the target's pass is in both, and the
proposals of other drafts in neither. Their ratio scatters by a few percent, so that dozens of
requests tell what hundreds of times per token cannot. The mean has a confidence sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from aurora_common.codec import Wire
from aurora_operator.domain.rollout.interval import half_width, welford
from aurora_operator.domain.rollout.outcome import Outcome

# How many requests must have been timed before anything rests on it.
LEAST_REQUESTS = 8
# Of a step: machines do not time smaller differences reliably.
INDIFFERENT = 0.02
# One stall must not outweigh all other requests.
_LARGEST_EXCESS = 3.0
_REQUIRED = Wire(required=True)


@dataclass(frozen=True, slots=True)
class StepCost:
    """By how much a step with the candidate takes longer than with the stable draft."""

    requests: Annotated[int, "How many requests were timed.", _REQUIRED] = 0
    excess: Annotated[float, "Mean share by which their steps take longer.", _REQUIRED] = 0.0
    scatter: Annotated[float, "Sum of its squared deviations.", _REQUIRED] = 0.0

    @property
    def excess_bps(self) -> Annotated[int, "How much longer a step takes; basis points."]:
        return round(self.excess * 10_000)

    def observe(self, outcome: Outcome) -> StepCost:
        """The cost once a request is counted; the same if it was not timed."""
        if outcome.step_time_us <= 0 or outcome.stable_step_time_us <= 0:
            return self
        excess = outcome.step_time_us / outcome.stable_step_time_us - 1
        mean, scatter = welford(
            self.excess, self.scatter, self.requests, min(excess, _LARGEST_EXCESS)
        )
        return StepCost(self.requests + 1, mean, scatter)


def is_measured(cost: StepCost | None) -> bool:
    return cost is not None and cost.requests >= LEAST_REQUESTS


def at_least(cost: StepCost | None, *, threshold: float) -> float:
    """A step with the candidate by one with the stable draft, but with probability α; `threshold`
    is log(1/α).

    1 if it does not cost more for certain.
    """
    width = _width(cost, threshold)
    if cost is None or width is None or cost.excess - width <= INDIFFERENT:
        return 1.0
    return 1 + cost.excess - width


def at_most(cost: StepCost | None, *, threshold: float) -> float:
    """Likewise, 1 if it seems not to cost more: a cheaper step earns nothing."""
    width = _width(cost, threshold)
    if cost is None or width is None or cost.excess <= INDIFFERENT:
        return 1.0
    return 1 + cost.excess + width


def estimated(cost: StepCost | None) -> float:
    """Likewise, as measured."""
    if cost is None or not is_measured(cost) or cost.excess <= INDIFFERENT:
        return 1.0
    return 1 + cost.excess


def _width(cost: StepCost | None, threshold: float) -> float | None:
    """Of a one-sided interval; None while too few requests were timed."""
    if cost is None or not is_measured(cost):
        return None
    return half_width(cost.scatter, cost.requests, 2 * math.exp(-threshold))
