"""The demo's scenario: traffic on one domain, a shift to another, and back, twice.

In the last phase drafts that are not better are published on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aurora_demo.corpus import Domain

Side = Literal["static", "adapted"]
SIDES: tuple[Side, Side] = ("static", "adapted")


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of traffic on one domain to some sides; `title` is for display."""

    title: str
    domain: Domain
    blocks: int
    sides: tuple[Side, ...] = SIDES


@dataclass(frozen=True, slots=True)
class Scenario:
    """Every block is sent to its sides in turn: the same prompts, never at once."""

    phases: tuple[Phase, ...]
    requests_per_block: int = 16
    concurrency: int = 1
    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 7

    @property
    def offering_phase(self) -> int:
        """It ends as soon as all offers are judged."""
        return len(self.phases) - 1

    @property
    def requests(self) -> int:
        """Requests to both sides together."""
        return self.requests_per_block * sum(
            phase.blocks * len(phase.sides) for phase in self.phases
        )


SCENARIO = Scenario(
    phases=(
        Phase("Python source", "python", 3),
        Phase("JSON logs", "logs", 20),
        Phase("Python source again", "python", 5),
        Phase("bad drafts", "logs", 160, sides=("adapted",)),
    )
)


@dataclass(frozen=True, slots=True)
class PlannedBlock:
    """One block of the scenario; `order`: its sides alternate in going first."""

    number: int
    phase: int
    order: tuple[Side, ...]


def planned_blocks(phases: Sequence[Phase]) -> list[PlannedBlock]:
    blocks: list[PlannedBlock] = []
    for index, phase in enumerate(phases):
        for _ in range(phase.blocks):
            number = len(blocks)
            order = phase.sides if number % 2 == 0 else phase.sides[::-1]
            blocks.append(PlannedBlock(number, index, order))
    return blocks
