"""What the engine has done since it started, by arm."""

from __future__ import annotations

from dataclasses import dataclass, field

from aurora_inference.engine.request import Arm


@dataclass(slots=True)
class ArmCounters:
    """Totals of one arm; `accepted_per_position[i]` counts drafts whose token i was accepted."""

    requests: int = 0
    failed_requests: int = 0
    verify_steps: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    output_tokens: int = 0
    accepted_per_position: list[int] = field(default_factory=list)

    def observe_step(self, drafted: int, accepted: int, emitted: int) -> None:
        self.output_tokens += emitted
        if drafted == 0:
            return
        self.verify_steps += 1
        self.drafted_tokens += drafted
        self.accepted_tokens += accepted
        missing = accepted - len(self.accepted_per_position)
        self.accepted_per_position.extend([0] * missing)
        for position in range(accepted):
            self.accepted_per_position[position] += 1


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """A snapshot for metrics and status."""

    arms: dict[Arm, ArmCounters]
    running: int
    waiting: int
