"""The draft slots, the share of new requests that each serves, and how those ended."""

from __future__ import annotations

from dataclasses import dataclass

from aurora_common.errors import ConflictError, InvalidInputError
from aurora_inference.contract import Arm, DraftReference, Ending, Served, Slot
from aurora_inference.slots.outcome_log import OutcomeLog

FULL_BPS = 10_000
# Beside the slots; each takes memory for its weights and its cache.
MAX_RETAINED = 7


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a request begins with, and its place in the outcome log if it is evidence."""

    draft: DraftReference | None
    arm: Arm
    rollout_id: str = ""
    sequence: int = 0


class Slots:
    """`stable` and `candidate` serve new requests; those in flight keep the draft they have.

    Requests of the stable arm may be given one of `retained`, by digest, instead.
    """

    def __init__(self, outcomes: OutcomeLog) -> None:
        self.outcomes = outcomes
        self.stable: DraftReference | None = None
        self.candidate: DraftReference | None = None
        self.retained: dict[str, DraftReference] = {}
        self.candidate_bps = 0

    @property
    def digests(self) -> set[str]:
        """The drafts that new requests may be assigned to."""
        slotted = {draft.digest for draft in (self.stable, self.candidate) if draft is not None}
        return slotted | self.retained.keys()

    @property
    def portfolio(self) -> list[DraftReference]:
        """The drafts among which requests of the stable arm may be given one, the stable first.

        Empty unless there is a choice.
        """
        if self.stable is None:
            return []
        others = [each for each in self.retained.values() if each.digest != self.stable.digest]
        return [self.stable, *others] if others else []

    def stage(self, slot: Slot, draft: DraftReference) -> None:
        """Puts a draft into a slot, or beside them; the traffic split is unchanged."""
        if slot == "stable":
            self.stable = draft
        elif slot == "candidate":
            self.candidate = draft
        else:
            self.check_room(draft.digest)
            self.retained[draft.digest] = draft

    def check_room(self, digest: str) -> None:
        """Raises ConflictError if this draft cannot be retained beside the others."""
        if digest not in self.retained and len(self.retained) >= MAX_RETAINED:
            raise ConflictError(
                f"{len(self.retained)} drafts are retained, the most allowed; release one first"
            )

    def release(self, digest: str) -> None:
        self.retained.pop(digest, None)

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
        """Draws a new request's arm; uniform in [0, 1). Its end must be told by `end`."""
        is_chosen = self.candidate is not None and uniform * FULL_BPS < self.candidate_bps
        arm: Arm = "candidate" if is_chosen else "stable"
        draft = self.candidate if is_chosen else self.stable
        rollout_id = self.outcomes.rollout_id
        # A request that could not have drawn the candidate is not evidence.
        if not (rollout_id and self.candidate_bps):
            return Assignment(draft, arm)
        sequence = self.outcomes.admit(
            arm,
            stable_digest=self.stable.digest if self.stable else "",
            candidate_digest=self.candidate.digest if self.candidate else "",
            candidate_bps=self.candidate_bps,
        )
        return Assignment(draft, arm, rollout_id, sequence)

    def end(self, assignment: Assignment, ending: Ending, served: Served) -> None:
        """Records what became of a request, if it is evidence; the first report of it counts."""
        if assignment.rollout_id:
            self.outcomes.end(assignment.rollout_id, assignment.sequence, ending, served)
