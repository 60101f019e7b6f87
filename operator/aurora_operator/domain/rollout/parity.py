"""Does an engine accept as much of a draft as the judge predicts for the very same tokens?

The trainer's `judge.parity` has why both must agree, whatever the traffic. A draft that an engine
reads otherwise than it was trained does no harm to what is said; it is accepted less, or never,
and nothing else tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Fewer say nothing, as requests are much alike.
_LEAST_REQUESTS = 8
_LEAST_TOKENS = 256
_MARGIN = 0.03
# Of the prediction: it is looked at again and again.
_STANDARD_ERRORS = 5.0
_CAUSES = (
    "other hidden-state layers (eagle_aux_hidden_state_layer_ids), rope parameters, vocabulary map "
    "(d2t) or dtype in the engine than in the checkpoint"
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Tokens that a draft proposed and the target tested in service, over `requests`.

    `predicted`: how many of the `tested` should be accepted, and `variance` that of their number.
    """

    digest: str
    requests: int
    tested: int
    accepted: int
    predicted: float
    variance: float


def disparity(agreement: Agreement) -> str | None:
    """That clearly less is accepted than predicted, and likely causes; None if not.

    More is no fault: the prediction is a lower bound where distributions are recorded in part.
    """
    if agreement.requests < _LEAST_REQUESTS or agreement.tested < _LEAST_TOKENS:
        return None
    missing = agreement.predicted - agreement.accepted
    noise = _STANDARD_ERRORS * math.sqrt(agreement.variance)
    if missing <= max(_MARGIN * agreement.tested, noise):
        return None
    return (
        f"of {agreement.tested} tokens that it drafted in {agreement.requests} requests, "
        f"{agreement.accepted / agreement.tested:.1%} were accepted, and its weights predict "
        f"{agreement.predicted / agreement.tested:.1%}: likely causes are {_CAUSES}"
    )
