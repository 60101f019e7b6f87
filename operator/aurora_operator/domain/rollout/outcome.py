"""What one served request says about the draft that it was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arm = Literal["stable", "candidate"]
# As inference tells it, and `lost`: admitted and never told of, since its inference died.
Ending = Literal["completed", "cancelled", "failed", "draft_failed", "timed_out", "lost"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request of a rollout; `candidate_bps` / 10000 is π as its arm was drawn.

    The times are 0 if unknown: a request of a single token has no `time_per_output_token_us`, one
    whose answer is not streamed through a gateway no `time_to_first_token_us`. The digests are
    those of the drafts that it could have drawn, empty if there was none. Of a request that the
    candidate served, `step_time_us` is that of a verify step with it, `stable_step_time_us` what
    the stable draft would have made of the same step.
    """

    arm: Arm
    candidate_bps: int
    drafted_tokens: int
    accepted_tokens: int
    ending: Ending = "completed"
    time_per_output_token_us: int = 0
    stable_digest: str = ""
    candidate_digest: str = ""
    time_to_first_token_us: int = 0
    step_time_us: int = 0
    stable_step_time_us: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """The requests that began while one arm served; the times are their mean."""

    requests: int
    failed_requests: int
    drafted_tokens: int
    accepted_tokens: int
    time_per_output_token_us: int = 0
    time_to_first_token_us: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two blocks of time of one inference, of which a coin decided which arm began."""

    stable: Block
    candidate: Block
    stable_digest: str = ""
    candidate_digest: str = ""
