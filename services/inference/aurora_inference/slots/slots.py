"""The two draft slots, the share of new requests that each serves, and how those ended."""

from __future__ import annotations

from dataclasses import dataclass

from aurora_common.errors import ConflictError, InvalidInputError
from aurora_inference.contract import Arm, DraftReference
from aurora_inference.slots.outcome_log import OutcomeLog

FULL_BPS = 10_000


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a request begins with; `rollout_id` is empty if the request is not evidence for one."""

    draft: DraftReference | None
    arm: Arm
    rollout_id: str
    candidate_bps: int


class Slots:
    """`stable` and `candidate` serve new requests; those in flight keep the draft they have."""

    def __init__(self, outcomes: OutcomeLog) -> None:
        self.outcomes = outcomes
        self.stable: DraftReference | None = None
        self.candidate: DraftReference | None = None
        self.candidate_bps = 0

    @property
    def digests(self) -> set[str]:
        """The drafts that new requests may be assigned to."""
        return {draft.digest for draft in (self.stable, self.candidate) if draft is not None}

    def stage(self, slot: Arm, draft: DraftReference) -> None:
        """Puts a draft into a slot; the traffic split is unchanged."""
        if slot == "stable":
            self.stable = draft
        else:
            self.candidate = draft

    def unstage(self) -> None:
        self.candidate = None
        self.candidate_bps = 0
        self.outcomes.follow("")

    def promote(self, digest: str) -> None:
        """Makes the candidate the stable draft; a no-op if `digest` is stable already."""
        if self.stable is not None and self.stable.digest == digest:
            return
        if self.candidate is None or self.candidate.digest != digest:
            staged = self.candidate.digest if self.candidate else "none"
            raise ConflictError(f"cannot promote {digest}: the candidate staged is {staged}")
        self.stable = self.candidate
        self.unstage()

    def split(self, rollout_id: str, candidate_bps: int) -> None:
        """Sets the candidate's share of new requests; another rollout starts an empty log."""
        if not 0 <= candidate_bps <= FULL_BPS:
            raise InvalidInputError(
                f"candidate_bps is {candidate_bps}; allowed are 0 to {FULL_BPS}"
            )
        if candidate_bps and not rollout_id:
            raise InvalidInputError("candidate_bps without rollout_id: name the rollout")
        if candidate_bps and self.candidate is None:
            raise ConflictError("no candidate is staged; stage one before it gets traffic")
        self.outcomes.follow(rollout_id)
        self.candidate_bps = candidate_bps

    def assign(self, uniform: float) -> Assignment:
        """Draws a new request's arm; uniform in [0, 1)."""
        rollout_id = self.outcomes.rollout_id
        if self.candidate is not None and uniform * FULL_BPS < self.candidate_bps:
            return Assignment(self.candidate, "candidate", rollout_id, self.candidate_bps)
        # A request that could not have drawn the candidate is not evidence.
        evidence_for = rollout_id if self.candidate_bps else ""
        return Assignment(self.stable, "stable", evidence_for, self.candidate_bps)
