"""The replay memory: a window of recent traffic, a reservoir per domain, and a holdout.

The window lets the draft follow a shift at once; the reservoirs keep it from forgetting what may
come back. Held-out trajectories, of each domain, are never trained on. Nothing here draws random
numbers: callers pass uniforms in [0, 1).
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aurora_trainer.data.sample import Sample

# The reservoir shared by domains beyond the limit, since clients choose domain names freely.
_OTHER_DOMAINS = ""
# Window draws are cubed towards the newest: half of them fall on the newest eighth.
_RECENCY = 3


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """Capacities; byte limits count arrays in memory."""

    window_count: int = 512
    window_bytes: int = 64 << 20
    reservoir_count: int = 64  # per domain
    reservoir_bytes: int = 64 << 20  # of all domains
    domain_count: int = 32
    holdout_count: int = 96
    holdout_bytes: int = 16 << 20
    holdout_percent: int = 5
    reservoir_percent: int = 25  # of a batch
    # Of the window, or of the holdout, with the same prompt.
    repeated_percent: int = 12


class SeatDraw(NamedTuple):
    """Two uniforms for one trajectory: which reservoir seat it takes, and which one is evicted."""

    seat: float
    evicted: float


class BatchDraw(NamedTuple):
    """Three uniforms for one member of a batch."""

    source: float
    domain: float
    member: float


@dataclass(slots=True)
class Reservoir:
    """A uniform sample of all trajectories of a domain (Vitter 1985, algorithm R).

    It shrinks by evicting random members: a uniform sample of a uniform sample is uniform.
    """

    capacity: int
    offered: int = 0
    members: list[Sample] = field(default_factory=list)
    size_bytes: int = 0

    def offer(self, sample: Sample, uniform: float) -> None:
        """Keeps the n-th trajectory offered with probability capacity/n."""
        self.offered += 1
        if len(self.members) < self.capacity:
            self.members.append(sample)
            self.size_bytes += sample.size_bytes
            return
        seat = int(uniform * self.offered)
        if seat < self.capacity:
            self.size_bytes += sample.size_bytes - self.members[seat].size_bytes
            self.members[seat] = sample

    def shrink(self, uniform: float) -> None:
        """Evicts a random member and removes its seat."""
        self.size_bytes -= self.members.pop(int(uniform * len(self.members))).size_bytes
        self.capacity = len(self.members)


@dataclass(slots=True)
class Window:
    """The newest trajectories within a count and a size; the very newest is always kept.

    What exceeds the limits is the oldest.
    """

    limit_count: int
    limit_bytes: int
    members: deque[Sample] = field(default_factory=deque)
    size_bytes: int = 0

    def append(self, sample: Sample) -> None:
        """Adds a trajectory and drops those beyond the limits."""
        self.members.append(sample)
        self.size_bytes += sample.size_bytes
        while len(self.members) > 1 and (
            len(self.members) > self.limit_count or self.size_bytes > self.limit_bytes
        ):
            place = self._place_to_drop()
            self.size_bytes -= self.members[place].size_bytes
            del self.members[place]

    def _place_to_drop(self) -> int:
        return 0


class Holdout(Window):
    """Trajectories for evaluation, the newest of each domain; the very newest is always kept.

    What exceeds the limits is the oldest of the domain with the most, so that a domain of which
    nothing arrives any more keeps its share.
    """

    __slots__ = ()

    def _place_to_drop(self) -> int:
        # Of equals, the one that comes first: that of the oldest trajectory.
        [(domain, _)] = Counter(each.domain for each in self.members).most_common(1)
        return next(i for i, each in enumerate(self.members) if each.domain == domain)


def is_held_out(request_id: str, percent: int) -> bool:
    """Whether the request belongs to the holdout, decided by a hash of its id."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % 10_000 < percent * 100


class Replay:
    """The trajectories that training and evaluation draw from."""

    def __init__(self, limits: ReplayLimits) -> None:
        self.limits = limits
        self.window = Window(limits.window_count, limits.window_bytes)
        self.holdout = Holdout(limits.holdout_count, limits.holdout_bytes)
        self.reservoirs: dict[str, Reservoir] = {}

    def is_repeated(self, sample: Sample) -> bool:
        """Whether so many with its prompt are here that another one teaches nothing.

        One prompt a million times leaves the rest of the window to other prompts.
        """
        held_out = is_held_out(sample.request_id, self.limits.holdout_percent)
        kept = self.holdout if held_out else self.window
        most = max(1, kept.limit_count * self.limits.repeated_percent // 100)
        return sum(each.has_prompt_of(sample) for each in kept.members) >= most

    def add(self, sample: Sample, draw: SeatDraw) -> None:
        """Puts a trajectory into the holdout, or into the window and its domain's reservoir."""
        if is_held_out(sample.request_id, self.limits.holdout_percent):
            self.holdout.append(sample)
            return
        self.window.append(sample)
        self._reservoir(sample.domain).offer(sample, draw.seat)
        self._bound_reservoirs(draw.evicted)

    def batch(self, draws: Sequence[BatchDraw]) -> list[Sample]:
        """One trajectory per draw, with repetition; empty if the window is empty."""
        if not self.window.members:
            return []
        return [self._member(draw) for draw in draws]

    def samples(self) -> Iterator[Sample]:
        """Every stored trajectory; one that is in both window and reservoir comes twice."""
        yield from self.window.members
        yield from self.holdout.members
        for reservoir in self.reservoirs.values():
            yield from reservoir.members

    def _member(self, draw: BatchDraw) -> Sample:
        if draw.source * 100 < self.limits.reservoir_percent:
            reservoirs = list(self.reservoirs.values())
            members = reservoirs[int(draw.domain * len(reservoirs))].members
            return members[int(draw.member * len(members))]
        window = self.window.members
        return window[-1 - int(draw.member**_RECENCY * len(window))]

    def _reservoir(self, domain: str) -> Reservoir:
        if domain not in self.reservoirs and len(self.reservoirs) >= self.limits.domain_count:
            domain = _OTHER_DOMAINS
        return self.reservoirs.setdefault(domain, Reservoir(self.limits.reservoir_count))

    def _bound_reservoirs(self, uniform: float) -> None:
        excess = sum(each.size_bytes for each in self.reservoirs.values())
        excess -= self.limits.reservoir_bytes
        while excess > 0:
            largest = max(self.reservoirs.values(), key=lambda each: each.size_bytes)
            if len(largest.members) == 1:
                return
            before = largest.size_bytes
            largest.shrink(uniform)
            excess -= before - largest.size_bytes
