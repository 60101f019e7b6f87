"""What a caller asks of the engine and what it hears back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Arm = Literal["stable", "candidate"]
FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: temperature 0 is greedy, `top_k` 0 and `top_p` 1 keep every token."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One completion; `record` says whether its trajectory may be kept."""

    id: str
    prompt_tokens: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    ignore_eos: bool = False
    tenant: str = ""
    domain: str = ""
    record: bool = True


@dataclass(frozen=True, slots=True)
class SpeculationReport:
    """Which draft served a request and how much of it the target accepted."""

    draft: str
    draft_digest: str
    arm: Arm
    steps: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True, slots=True)
class Progress:
    """New tokens of one request; the last one carries `finish_reason` and `report`."""

    request_id: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    report: SpeculationReport | None


@dataclass(frozen=True, slots=True)
class VerifyStep:
    """One pass of the target over a row: what was drafted, what it accepted, what it took."""

    drafted: int
    accepted: int
    batch_size: int
    microseconds: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished request with the target's own distribution at each output token.

    Row i of `top_ids` (uint32 [T, k], most probable first), `top_log_probs` (float16 [T, k]) and
    `tail_mass` (float16 [T]) is the distribution, at temperature 1, that decided output token i.
    """

    request: Request
    output_tokens: tuple[int, ...]
    report: SpeculationReport
    steps: tuple[VerifyStep, ...]
    top_ids: NDArray[np.uint32]
    top_log_probs: NDArray[np.float16]
    tail_mass: NDArray[np.float16]
