"""The demo's measurements, and the figures derived from them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aurora_demo.scenario import Side

# Blocks with a smaller share of training time count as serving only.
_QUIET_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class ServedRequest:
    """One request as the client saw it; `number` counts a side's requests from 0."""

    side: Side
    number: int
    draft: str
    arm: str
    tokens: int
    seconds: float
    drafted_tokens: int
    accepted_tokens: int
    failed: bool

    @property
    def acceptance(self) -> float | None:
        """Accepted ÷ drafted; None if nothing was drafted."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else None


@dataclass(frozen=True, slots=True)
class ServedBlock:
    """One block on one side; `training_seconds`: the training time during it."""

    side: Side
    number: int
    phase: int
    tokens: int
    seconds: float
    training_seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def is_quiet(self) -> bool:
        return self.training_seconds < _QUIET_SHARE * self.seconds


@dataclass(frozen=True, slots=True)
class Guard:
    """What protects live requests, and whether it held at the end; None: nothing was measured."""

    name: str
    held: bool | None


@dataclass(frozen=True, slots=True)
class Canary:
    """A finished rollout, located between two of the adapted side's requests.

    `evidence` has log E as it grew towards `threshold`; empty if it was not seen. `offered` says
    what it is, if it was published on purpose.
    """

    id: str
    checkpoint: str
    outcome: str
    reason: str
    requests: int
    effect_bps: int | None
    saved_bps: int | None
    replayed: int | None
    first_request: int
    last_request: int
    saved_ci_bps: tuple[int, int] | None = None
    evidence: tuple[float, ...] = ()
    threshold: float = 0.0
    guards: tuple[Guard, ...] = ()
    offered: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything measured in one run."""

    requests: tuple[ServedRequest, ...]
    blocks: tuple[ServedBlock, ...]
    canaries: tuple[Canary, ...]
    shift_phase: int
    requests_per_block: int

    def side(self, side: Side) -> list[ServedRequest]:
        return [request for request in self.requests if request.side == side]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the summary; `spread`: the interquartile range of its samples."""

    value: float
    unit: str
    spread: float | None = None


def figures(measurement: Measurement) -> dict[str, Figure]:
    """The figures of summary.json; those that this run cannot give are left out."""
    learned = [canary for canary in measurement.canaries if not canary.offered]
    offered = [canary for canary in measurement.canaries if canary.offered]
    found = {
        "failed_requests": Figure(sum(r.failed for r in measurement.requests), "requests"),
        "promotions": Figure(_count(learned, "Promoted"), "rollouts"),
        "refusals": Figure(len(learned) - _count(learned, "Promoted"), "rollouts"),
        "inconclusive": Figure(_count(learned, "Inconclusive"), "rollouts"),
        "bad_drafts_promoted": Figure(_count(offered, "Promoted"), "rollouts"),
        "bad_drafts_refused": Figure(_count(offered, "RolledBack"), "rollouts"),
    }
    shifted = [b for b in measurement.blocks if b.phase == measurement.shift_phase]
    static = [b.tokens_per_second for b in shifted if b.side == "static" and b.is_quiet]
    adapted = [b for b in shifted if b.side == "adapted"]
    settled = [
        b.tokens_per_second
        for b in adapted
        if b.is_quiet and b.number > _first_promotion_block(measurement)
    ]
    if static and settled:
        baseline = statistics.median(static)
        ratios = [rate / baseline for rate in settled]
        found["adapted_over_static"] = Figure(statistics.median(ratios), "ratio", _spread(ratios))
        found["static_tokens_per_second"] = Figure(baseline, "tokens/s", _spread(static))
        found["adapted_tokens_per_second"] = Figure(
            statistics.median(settled), "tokens/s", _spread(settled)
        )
    if static and adapted:
        # All training is charged to the adapted side, even what ran while the other served.
        elsewhere = sum(b.training_seconds for b in shifted if b.side == "static")
        spent = sum(b.seconds for b in adapted) + elsewhere
        net = sum(b.tokens for b in adapted) / spent
        found["adapted_over_static_net"] = Figure(net / statistics.median(static), "ratio")
    return found


def rolling_acceptance(
    requests: Sequence[ServedRequest], window: int
) -> tuple[list[int], list[float]]:
    """Request numbers, and the acceptance rate over the `window` requests up to each."""
    numbers, rates = [], []
    ordered = sorted(requests, key=lambda request: request.number)
    for index, request in enumerate(ordered):
        recent = ordered[max(0, index + 1 - window) : index + 1]
        drafted = sum(each.drafted_tokens for each in recent)
        if drafted:
            numbers.append(request.number)
            rates.append(sum(each.accepted_tokens for each in recent) / drafted)
    return numbers, rates


def _first_promotion_block(measurement: Measurement) -> float:
    """The block of the first promotion after the shift; infinity if there was none."""
    shift = min(
        (b.number for b in measurement.blocks if b.phase == measurement.shift_phase), default=0
    )
    blocks = [
        canary.last_request // measurement.requests_per_block
        for canary in measurement.canaries
        if canary.outcome == "Promoted"
    ]
    return min((block for block in blocks if block >= shift), default=float("inf"))


def _count(canaries: Iterable[Canary], outcome: str) -> int:
    return sum(canary.outcome == outcome for canary in canaries)


def _spread(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    lower, _, upper = statistics.quantiles(values, n=4)
    return upper - lower
