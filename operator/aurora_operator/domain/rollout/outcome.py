"""What one served request says about the draft that it was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arm = Literal["stable", "candidate"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished request of a rollout; `candidate_bps` / 10000 is π as its arm was drawn.

    `time_per_output_token_us` is 0 if unknown: a request of a single token has none.
    """

    arm: Arm
    candidate_bps: int
    drafted_tokens: int
    accepted_tokens: int
    failed: bool = False
    time_per_output_token_us: int = 0
