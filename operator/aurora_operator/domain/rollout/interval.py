"""Confidence sequences of a running mean: intervals that hold at every time at once."""

from __future__ import annotations

import math

# The observations after which the interval is narrowest.
_TUNED_FOR = 300


def half_width(scatter: float, count: int, alpha: float) -> float | None:
    """Half of the width of an asymptotic confidence sequence; None before two observations.

    `scatter`: the sum of squared deviations from the mean of `count` observations. The interval
    leaves out the true mean at any time with probability at most `alpha`, but only asymptotically
    (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, "Time-uniform central limit theory and
    asymptotic confidence sequences", eq. 2).
    """
    if count < 2:
        return None
    log_term = -2 * math.log(alpha)
    tuning = (log_term + math.log(log_term) + 1) / _TUNED_FOR
    spread = count * tuning + 1
    scale = 2 * spread / (count * count * tuning) * math.log(math.sqrt(spread) / alpha)
    return math.sqrt(scatter / count * scale)


def welford(mean: float, scatter: float, count: int, value: float) -> tuple[float, float]:
    """Mean and scatter of `count` observations once `value` is added."""
    deviation = value - mean
    after = mean + deviation / (count + 1)
    return after, scatter + deviation * (value - after)
