"""How evidence grew, as a few evenly spaced samples: for people, never for a decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from aurora_common.codec import Wire
from aurora_operator.domain.rollout.betting import log_e_value

MAX_SAMPLES = 32
_DIGITS = 2


@dataclass(frozen=True, slots=True)
class EvidencePath:
    """Evidence as it grew: a sample after every so many requests."""

    every: Annotated[int, "Requests, or pairs of blocks, from one sample to the next."] = 1
    log_e: Annotated[
        tuple[float, ...], "Logarithms of the e-value for better.", Wire(max_items=MAX_SAMPLES)
    ] = ()
    log_harm: Annotated[
        tuple[float, ...], "Logarithms of the e-value for worse.", Wire(max_items=MAX_SAMPLES)
    ] = ()


def sampled(
    path: EvidencePath | None,
    count: int,
    log_wealth: tuple[float, ...],
    log_harm_wealth: tuple[float, ...],
) -> EvidencePath:
    """The path once `count` requests are judged, one more than before.

    A full one keeps every other sample, so that it depends on the requests alone.
    """
    path = path or EvidencePath()
    if count % path.every:
        return path
    log_e = (*path.log_e, _rounded(log_wealth))
    log_harm = (*path.log_harm, _rounded(log_harm_wealth))
    if len(log_e) > MAX_SAMPLES:
        return EvidencePath(2 * path.every, log_e[1::2], log_harm[1::2])
    return EvidencePath(path.every, log_e, log_harm)


def _rounded(log_wealth: tuple[float, ...]) -> float:
    # Never -0.0.
    return round(log_e_value(log_wealth), _DIGITS) + 0.0
