"""What a round of training gained on held-out trajectories, and whether that pays for its time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.held_out import LEAST_TRAJECTORIES

# Groups of trajectories are what is paired: as many as are needed for a standard error.
_GROUPS = 16
# For so long what a round gained is taken to last: traffic moves on.
PAYBACK_SECONDS = 600.0
# Acceptance so close to 1 that what it would save is not extrapolated.
_LEAST_REJECTED = 0.02


@dataclass(frozen=True, slots=True)
class Probe:
    """Acceptance of groups of held-out trajectories before a round, by their stream ids."""

    groups: tuple[tuple[str, ...], ...] = ()
    acceptance: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean gain in acceptance over `groups`, its standard error, and the acceptance reached."""

    mean: float
    error: float
    acceptance: float
    groups: int = field(default=_GROUPS)

    @property
    def saved_share(self) -> float:
        """The share of the verify steps that the mean gain saves.

        A draft whose tokens are accepted with probability α makes about 1 / (1 - α) tokens a step
        (Leviathan et al., arXiv 2211.17192, eq. 1, for long proposals).
        """
        return self.mean / self._rejected_before

    @property
    def least_saved_share(self) -> float:
        """The same by the lower bound: the mean less its standard error."""
        return (self.mean - self.error) / self._rejected_before

    @property
    def _rejected_before(self) -> float:
        return max(_LEAST_REJECTED, 1 - self.acceptance + self.mean)


def probe(samples: Sequence[Sample], acceptance: Callable[[Sequence[Sample]], float]) -> Probe:
    """Measures the held-out trajectories before a round; empty with too few of them."""
    if len(samples) < LEAST_TRAJECTORIES:
        return Probe()
    size = math.ceil(len(samples) / _GROUPS)
    groups = [samples[start : start + size] for start in range(0, len(samples), size)]
    return Probe(
        tuple(tuple(sample.stream_id for sample in group) for group in groups),
        tuple(acceptance(group) for group in groups),
    )


def gain(
    before: Probe, samples: Mapping[str, Sample], acceptance: Callable[[Sequence[Sample]], float]
) -> Gain | None:
    """Measures the same trajectories after the round; None with too few of them.

    `samples`: those still held out, by stream id. A group that lost a member is left out.
    """
    differences, reached = [], []
    for ids, earlier in zip(before.groups, before.acceptance, strict=True):
        if all(each in samples for each in ids):
            found = acceptance([samples[each] for each in ids])
            differences.append(found - earlier)
            reached.append(found)
    count = len(differences)
    if count < _GROUPS // 2:
        return None
    mean = math.fsum(differences) / count
    variance = math.fsum((each - mean) ** 2 for each in differences) / (count - 1)
    return Gain(mean, math.sqrt(variance / count), math.fsum(reached) / count, count)


def pays(found: Gain, *, seconds: float) -> bool:
    """Whether what a round surely saves in `PAYBACK_SECONDS` of serving is worth its `seconds`."""
    return found.least_saved_share * PAYBACK_SECONDS >= seconds
