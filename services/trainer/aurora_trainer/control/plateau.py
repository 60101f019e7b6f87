"""No training while it costs more than it gains."""

from __future__ import annotations

from dataclasses import dataclass

from aurora_trainer.control.gain import PAYBACK_SECONDS, Gain, pays

# One round may gain little by chance, or because the optimizer is still warming up.
_PATIENCE_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Plateau:
    """`fruitless`: rounds in succession that did not pay, the last of them at `trajectories`.

    `saved_share` and `seconds`: what the last of them surely saved, and what it took.
    """

    fruitless: int = 0
    trajectories: int = 0
    saved_share: float = 0.0
    seconds: float = 0.0

    @property
    def resumes_at(self) -> int:
        """The number of trajectories at which training is tried again: twice as many."""
        return 2 * self.trajectories

    def waits(self, trajectories: int) -> bool:
        """Whether no round should begin."""
        return self.fruitless >= _PATIENCE_ROUNDS and trajectories < self.resumes_at

    def described(self, trajectories: int) -> str:
        """Why no round should begin, for a person; empty if one may."""
        if not self.waits(trajectories):
            return ""
        saved_seconds = max(0.0, self.saved_share) * PAYBACK_SECONDS
        return (
            f"the last {self.fruitless} rounds cost more than they gained: the last one took "
            f"{self.seconds:.1f} s and saves {saved_seconds:.1f} s of {PAYBACK_SECONDS:.0f} s; "
            f"training resumes when traffic changes or after {self.resumes_at:,} trajectories"
        )


def after_round(
    state: Plateau, found: Gain | None, *, seconds: float, trajectories: int
) -> Plateau:
    """The plateau after a round of so many seconds; without a measurement there is none."""
    if found is None or pays(found, seconds=seconds):
        return Plateau()
    return Plateau(state.fruitless + 1, trajectories, found.least_saved_share, seconds)
