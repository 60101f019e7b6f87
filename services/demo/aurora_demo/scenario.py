"""The demo's scenario: traffic on one domain, a shift to another, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aurora_demo.corpus import Domain

Side = Literal["static", "adapted"]
SIDES: tuple[Side, Side] = ("static", "adapted")


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of traffic on one domain; `title` is for display."""

    title: str
    domain: Domain
    blocks: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """Every block is sent to both sides in turn: the same prompts, never at once."""

    phases: tuple[Phase, ...]
    requests_per_block: int = 16
    concurrency: int = 1
    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 7

    @property
    def requests(self) -> int:
        """Requests to each side."""
        return self.requests_per_block * sum(phase.blocks for phase in self.phases)


SCENARIO = Scenario(
    phases=(
        Phase("Python source", "python", 3),
        Phase("JSON logs", "logs", 20),
        Phase("Python source again", "python", 5),
    )
)


@dataclass(frozen=True, slots=True)
class PlannedBlock:
    """One block of the scenario; `order`: the sides alternate in going first."""

    number: int
    phase: int
    order: tuple[Side, Side]


def planned_blocks(phases: Sequence[Phase]) -> list[PlannedBlock]:
    blocks: list[PlannedBlock] = []
    for index, phase in enumerate(phases):
        for _ in range(phase.blocks):
            number = len(blocks)
            order = SIDES if number % 2 == 0 else (SIDES[1], SIDES[0])
            blocks.append(PlannedBlock(number, index, order))
    return blocks
