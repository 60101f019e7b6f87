"""Does the candidate save time on all requests together: verify steps by what a step costs?

With `cost` the time of a step with the candidate by that of one with the stable draft, all requests
save D = S(stable) − cost · S(candidate) on average, in steps of the stable draft. Its mean and
scatter follow for any cost from those of S(stable) − S(candidate) and of S(candidate), so that what
was replayed does not depend on when the cost became known.
"""

from __future__ import annotations

import math

from aurora_operator.domain.rollout import step_cost
from aurora_operator.domain.rollout.interval import half_width
from aurora_operator.domain.rollout.replay import Replay
from aurora_operator.domain.rollout.step_cost import StepCost

SHOWN_ALPHA = 0.05
# The interval is asymptotic, and what is harmful should be found to be so.
_FUTILE_AFTER_REQUESTS = 200


def is_faster(
    replay: Replay, *, threshold: float, min_effect: float = 0.0, cost: StepCost | None = None
) -> bool:
    """Whether it saves steps on requests and time on all of them; `threshold` is log(1/α)."""
    return (
        replay.log_e >= threshold
        and is_cost_known(replay, cost)
        and saves_overall(replay, threshold=threshold, min_effect=min_effect, cost=cost)
    )


def is_cost_known(replay: Replay, cost: StepCost | None) -> bool:
    """Whether it is known what a step costs: the same with drafts of one shape, else as timed."""
    return not replay.shapes_differ or step_cost.is_measured(cost)


def saves_overall(
    replay: Replay, *, threshold: float, min_effect: float, cost: StepCost | None = None
) -> bool:
    """Whether all requests save more than the share `min_effect`, but with probability α."""
    least = saved_at_least(replay, threshold=threshold, cost=cost)
    return least is not None and least > min_effect * replay.stable_steps


def saved_at_least(
    replay: Replay, *, threshold: float, cost: StepCost | None = None
) -> float | None:
    """What it saves at least, on average, but with probability α, one-sided.

    In verify steps of the stable draft; None before two requests. `threshold` is log(1/α).
    """
    times = step_cost.at_most(cost, threshold=threshold)
    return _bound(replay, times, -1, alpha=2 * math.exp(-threshold))


def saved_at_most(replay: Replay) -> float | None:
    """The upper end of its 95% interval in verify steps; None before two requests."""
    return _bound(replay, 1.0, 1, alpha=SHOWN_ALPHA)


def is_futile(replay: Replay, *, min_effect: float = 0.0) -> bool:
    """Whether it saves less than it must, with 95% confidence; never soon."""
    most = saved_at_most(replay)
    if most is None or replay.requests < _FUTILE_AFTER_REQUESTS:
        return False
    return most < min_effect * replay.stable_steps


def saved_with_cost(replay: Replay, cost: StepCost | None) -> float | None:
    """The upper end of its 95% interval if its steps cost more, with 95% confidence too.

    None if they do not for certain, or before two requests.
    """
    times = step_cost.at_least(cost, threshold=-math.log(SHOWN_ALPHA / 2))
    return None if times == 1 else _bound(replay, times, 1, alpha=SHOWN_ALPHA)


def is_harmful_cost(replay: Replay, cost: StepCost | None) -> bool:
    """Whether it is slower because its steps cost more than it saves of them."""
    most = saved_with_cost(replay, cost)
    return most is not None and most < 0


def _bound(replay: Replay, times: float, side: int, *, alpha: float) -> float | None:
    """The lower (-1) or upper (1) end of D's interval, a step costing so many `times` as much."""
    excess = times - 1
    candidate_steps = replay.stable_steps - replay.saved_steps
    scatter = (
        replay.saved_scatter
        - 2 * excess * replay.saved_product
        + excess * excess * replay.candidate_scatter
    )
    width = half_width(max(scatter, 0.0), replay.requests, alpha)
    return None if width is None else replay.saved_steps - excess * candidate_steps + side * width
