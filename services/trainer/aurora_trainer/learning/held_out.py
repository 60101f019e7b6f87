"""Two drafts on the held-out trajectories: is the one in training worth a rollout?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aurora_trainer.data.sample import Sample

# Fewer trajectories say nothing, of all domains together or of one.
LEAST_TRAJECTORIES = 16
# How much less may be accepted in a domain.
_DOMAIN_MARGIN = 0.01
# The least share of the verify steps that must be saved: a rollout would need thousands of requests
# to tell less, and end Inconclusive.
_LEAST_SAVED_SHARE = 0.01


class Acceptance(Protocol):
    """The mean expected acceptance of a draft over the positions of some trajectories."""

    def __call__(self, samples: Sequence[Sample]) -> float: ...


@dataclass(frozen=True, slots=True)
class Pair:
    """Mean acceptance of both drafts over `positions` of `trajectories`."""

    trajectories: int
    positions: int
    stable: float
    trained: float

    def __str__(self) -> str:
        return (
            f"{self.trained:.1%} accepted on {self.trajectories} held-out trajectories, "
            f"{self.stable:.1%} with the stable draft"
        )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Both drafts on the same held-out trajectories."""

    domains: Mapping[str, Pair]

    @property
    def all(self) -> Pair:
        pairs = self.domains.values()
        positions = sum(pair.positions for pair in pairs)
        return Pair(
            trajectories=sum(pair.trajectories for pair in pairs),
            positions=positions,
            stable=sum(pair.stable * pair.positions for pair in pairs) / positions,
            trained=sum(pair.trained * pair.positions for pair in pairs) / positions,
        )

    @property
    def prefers_stable(self) -> bool:
        """Whether more is accepted with the stable draft."""
        return self.all.stable > self.all.trained

    @property
    def objection(self) -> str:
        """Why a rollout of the one in training would be refused or inconclusive; else empty.

        A draft whose tokens are accepted with probability α makes about 1 / (1 - α) tokens a step.
        """
        found = self.all
        if found.trained - found.stable < _LEAST_SAVED_SHARE * (1 - found.stable):
            return str(found)
        for name, pair in sorted(self.domains.items()):
            is_worse = pair.stable - pair.trained > _DOMAIN_MARGIN
            if is_worse and pair.trajectories >= LEAST_TRAJECTORIES:
                return f"{'domain ' + name if name else 'no domain'}: {pair}"
        return ""


def held_out(
    samples: Sequence[Sample], *, stable: Acceptance, trained: Acceptance
) -> HeldOut | None:
    """Compares both; None with too few trajectories."""
    if len(samples) < LEAST_TRAJECTORIES:
        return None
    domains: dict[str, list[Sample]] = {}
    for sample in samples:
        domains.setdefault(sample.domain, []).append(sample)
    return HeldOut(
        {
            name: Pair(
                trajectories=len(members),
                positions=sum(sample.output_count for sample in members),
                stable=stable(members),
                trained=trained(members),
            )
            for name, members in domains.items()
        }
    )
