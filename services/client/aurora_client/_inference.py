"""Status and counters of the inference service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft checkpoint: `digest` is `sha256:<64 hex>`, `uri` its place in a model store."""

    name: str
    digest: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class InferenceStatus:
    """What one inference process serves.

    `instance` changes with each start of the process. `candidate_bps` of 10,000 new requests go to
    the candidate. `speculation_length` is the controller's choice for the current batch, 0 if
    speculation does not pay.
    """

    instance: str
    model: str
    target_digest: str
    tokenizer_digest: str
    stable: Draft | None
    candidate: Draft | None
    rollout_id: str
    candidate_bps: int
    speculation_length: int
    max_context_tokens: int
    device: str = ""


@dataclass(frozen=True, slots=True)
class ArmCounters:
    """Totals of one arm, `stable` or `candidate`, since the process started."""

    arm: str
    requests: int
    failed_requests: int
    verify_steps: int
    drafted_tokens: int
    accepted_tokens: int
    output_tokens: int

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted draft tokens / drafted tokens; None if nothing was drafted."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else None

    @property
    def mean_acceptance_length(self) -> float | None:
        """1 + accepted tokens / verify steps, counting the bonus token; None without a step."""
        return 1 + self.accepted_tokens / self.verify_steps if self.verify_steps else None


@dataclass(frozen=True, slots=True)
class NgramCounters:
    """What was drafted by n-grams, for requests that no draft served, since the process started."""

    verify_steps: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted tokens / drafted tokens; None if nothing was drafted."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else None


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals of one inference process since its start, and its current load."""

    instance: str
    arms: tuple[ArmCounters, ...]
    trajectories_sent: int
    trajectories_dropped: int
    running_requests: int
    waiting_requests: int
    ngram: NgramCounters = NgramCounters()
