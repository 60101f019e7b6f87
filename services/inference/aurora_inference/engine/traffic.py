"""The two draft slots, which share of the requests each serves, and how those requests ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from aurora_common.errors import ConflictError, InvalidInputError
from aurora_inference.engine.draft_model import DraftModel
from aurora_inference.engine.request import Arm

FULL_BPS = 10_000
# Outcomes kept for the judge; at 100 requests a second it may be away for ten minutes.
_OUTCOMES = 65_536


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request of a rollout ended; `candidate_bps` is the probability of its arm's draw."""

    arm: Arm
    candidate_bps: int
    drafted_tokens: int
    accepted_tokens: int
    failed: bool
    time_per_output_token_us: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a request begins with; `rollout_id` is empty where it is no evidence for one."""

    draft: DraftModel | None
    arm: Arm
    rollout_id: str
    candidate_bps: int


class Traffic:
    """`stable` and `candidate` are what new requests get; those in flight keep what they have."""

    def __init__(self) -> None:
        self.stable: DraftModel | None = None
        self.candidate: DraftModel | None = None
        self.rollout_id = ""
        self.candidate_bps = 0
        self._outcomes: deque[Outcome] = deque(maxlen=_OUTCOMES)
        self._sequence = 0

    def stage(self, slot: Arm, draft: DraftModel) -> None:
        """Puts a draft into a slot; the candidate's share stays as it is."""
        if slot == "stable":
            self.stable = draft
        else:
            self.candidate = draft

    def unstage(self) -> None:
        self.candidate = None
        self.candidate_bps = 0
        self.rollout_id = ""

    def promote(self, digest: str) -> None:
        """The candidate becomes the stable; a no-op where the stable is that draft already."""
        if self.stable is not None and self.stable.digest == digest:
            return
        if self.candidate is None or self.candidate.digest != digest:
            staged = self.candidate.digest if self.candidate else "none"
            raise ConflictError(f"cannot promote {digest}: the candidate staged is {staged}")
        self.stable = self.candidate
        self.unstage()

    def set_share(self, rollout_id: str, candidate_bps: int) -> None:
        """Gives the candidate its share of the new requests; outcomes start anew with a rollout."""
        if not 0 <= candidate_bps <= FULL_BPS:
            raise InvalidInputError(
                f"candidate_bps is {candidate_bps}; allowed are 0 to {FULL_BPS}"
            )
        if candidate_bps and not rollout_id:
            raise InvalidInputError("candidate_bps without rollout_id: name the rollout")
        if candidate_bps and self.candidate is None:
            raise ConflictError("no candidate is staged; stage one before it gets traffic")
        if rollout_id and rollout_id != self.rollout_id:
            self._outcomes.clear()
            self._sequence = 0
        self.rollout_id = rollout_id
        self.candidate_bps = candidate_bps

    def assign(self, uniform: float) -> Assignment:
        """Draws a new request's arm; uniform in [0, 1)."""
        if self.candidate is not None and uniform * FULL_BPS < self.candidate_bps:
            return Assignment(self.candidate, "candidate", self.rollout_id, self.candidate_bps)
        # A request that had no chance of the candidate is no evidence.
        rollout = self.rollout_id if self.candidate_bps else ""
        return Assignment(self.stable, "stable", rollout, self.candidate_bps)

    def record(self, rollout_id: str, outcome: Outcome) -> None:
        """Keeps a finished request's outcome, unless it belongs to no or to another rollout.

        The outcome's `sequence` is given here.
        """
        if rollout_id and rollout_id == self.rollout_id:
            self._sequence += 1
            self._outcomes.append(replace(outcome, sequence=self._sequence))

    @property
    def last_sequence(self) -> int:
        """Of the newest outcome; 0 where there is none."""
        return self._sequence

    def outcomes(self, rollout_id: str, *, after: int, limit: int) -> list[Outcome]:
        """The outcomes of a rollout with a sequence above `after`, oldest first."""
        if rollout_id != self.rollout_id:
            return []
        return [outcome for outcome in self._outcomes if outcome.sequence > after][:limit]
