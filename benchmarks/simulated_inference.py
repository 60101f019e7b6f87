"""One inference of a simulated fleet: the engines' own slots and outcome log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aurora_inference.contract import Cursor as LogCursor
from aurora_inference.contract import DraftReference
from aurora_inference.slots.outcome_log import OutcomeLog
from aurora_inference.slots.slots import Slots
from aurora_inference.trajectory.admission import Admissions
from aurora_operator.domain.plan.action import (
    Action,
    PromoteDraft,
    SetTraffic,
    StageDraft,
    UnstageDraft,
)
from aurora_operator.domain.plan.observation import InferenceView, OutcomeBatch
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.status.deployment import Draft, Rollout

_LIMIT = 1000
_RESTART_SECONDS = 15.0


@dataclass(slots=True, eq=False)
class SimulatedInference:
    """One inference; a death is a new life with empty slots."""

    name: str
    clock: Callable[[], float]
    life: int = 0
    down_until: float = 0.0
    leaving: bool = False
    in_flight: int = 0
    slots: Slots = field(init=False)
    admissions: Admissions = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    @property
    def instance(self) -> str:
        return self.slots.outcomes.instance

    def begin(self) -> None:
        self.slots = Slots(OutcomeLog(f"{self.name}/{self.life}", clock=self.clock))
        self.admissions = Admissions(lambda: int(self.clock() * 1e6))
        self.in_flight = 0

    def die(self, now: float) -> None:
        self.life += 1
        self.down_until = now + _RESTART_SECONDS
        self.begin()

    def view(self) -> InferenceView:
        slots = self.slots
        return InferenceView(
            self.name,
            self.instance,
            _draft(slots.stable),
            _draft(slots.candidate),
            slots.outcomes.rollout_id,
            slots.candidate_bps,
        )

    def apply(self, action: Action) -> None:
        match action:
            case StageDraft(slot=slot, draft=draft):
                reference = DraftReference(draft.checkpoint, draft.digest, draft.uri)
                self.slots.stage(slot, reference)
            case UnstageDraft():
                self.slots.unstage()
            case SetTraffic(rollout_id=rollout_id, candidate_bps=bps):
                self.slots.split(rollout_id, bps)
            case PromoteDraft(digest=digest):
                self.slots.promote(digest)

    def batch(self, rollout: Rollout) -> OutcomeBatch:
        """Everything after the status's cursor."""
        known = rollout.cursors.get(self.name)
        cursor = LogCursor(known.instance, known.after) if known else LogCursor("", 0)
        found: list[tuple[int, Outcome]] = []
        while True:
            page = self.slots.outcomes.page(rollout.id, cursor, _LIMIT)
            found += [
                (
                    each.sequence,
                    Outcome(
                        each.arm,
                        each.candidate_bps,
                        each.served.drafted_tokens,
                        each.served.accepted_tokens,
                        each.ending,
                        each.served.time_per_output_token_us,
                        each.stable_digest,
                        each.candidate_digest,
                        step_time_us=each.served.step_time_us,
                        stable_step_time_us=each.served.stable_step_time_us,
                    ),
                )
                for each in page.outcomes
            ]
            cursor = page.next
            if len(page.outcomes) < _LIMIT:
                break
        unlisted = page.unlisted
        return OutcomeBatch(
            self.name,
            self.instance,
            rollout.id,
            tuple(found),
            unlisted["stable"],
            unlisted["candidate"],
        )


def _draft(reference: DraftReference | None) -> Draft | None:
    return Draft(reference.name, reference.digest, reference.uri) if reference else None
