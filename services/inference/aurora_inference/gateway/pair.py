"""Pairs of time blocks, of which each arm gets one: the unit of evidence of a switchback canary.

Pairs are told of in their order, each once all requests that began in it have ended. One that never
ends holds up the others until it is given up, ten minutes after its pair; it then counts as failed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from aurora_inference.contract import Arm, Outcome, Served

# What a pair should hold, and the bounds of its blocks.
_REQUESTS_PER_PAIR = 30
_SHORTEST_BLOCK_SECONDS = 2.0
_LONGEST_BLOCK_SECONDS = 600.0
_GROWTH = 4.0
# After that its requests in flight are given up.
_DEADLINE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of time in which one arm serves; `pair` counts from 1 in each rollout."""

    rollout_id: str
    pair: int
    arm: Arm
    candidate_bps: int
    stable_digest: str
    candidate_digest: str


def order(rollout_id: str, pair: int, *, crossed: bool) -> tuple[Arm, Arm]:
    """Which arm a pair begins and ends with: a fair coin, on which crossed replicas disagree."""
    coin = hashlib.sha256(f"{rollout_id}/{pair}".encode()).digest()[0] & 1
    return ("candidate", "stable") if coin ^ crossed else ("stable", "candidate")


def block_seconds(
    candidate_bps: int, *, requests_per_second: float, former_seconds: float
) -> dict[Arm, float]:
    """How long each arm's block is: by its share, and by the traffic, which fills a pair.

    `former_seconds`: the shorter block of the pair before, 0 if there is none. Blocks grow slowly,
    so that a pause in the traffic does not bring on one of ten minutes.
    """
    shares: dict[Arm, float] = {
        "candidate": candidate_bps / 10_000,
        "stable": 1 - candidate_bps / 10_000,
    }
    smaller, larger = min(shares.values()), max(shares.values())
    wanted = smaller * _REQUESTS_PER_PAIR / max(requests_per_second, 1e-9)
    longest = min(_LONGEST_BLOCK_SECONDS * smaller / larger, _GROWTH * former_seconds)
    shorter = max(min(wanted, longest), _SHORTEST_BLOCK_SECONDS)
    return {arm: shorter * share / smaller for arm, share in shares.items()}


@dataclass(slots=True)
class _Mean:
    """Of times that are known."""

    count: int = 0
    total: int = 0

    def add(self, microseconds: int) -> None:
        self.count += microseconds > 0
        self.total += microseconds

    @property
    def value(self) -> int:
        return self.total // self.count if self.count else 0


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    failed: int = 0
    drafted: int = 0
    accepted: int = 0
    begun: _Mean = field(default_factory=_Mean)
    decoded: _Mean = field(default_factory=_Mean)
    in_flight: int = 0

    def outcome(self, arm: Arm, block: Block) -> Outcome:
        """`block`: one of the pair's."""
        return Outcome(
            arm=arm,
            stable_digest=block.stable_digest,
            candidate_digest=block.candidate_digest,
            candidate_bps=block.candidate_bps,
            ending="failed" if self.failed else "completed",
            served=Served(
                drafted_tokens=self.drafted,
                accepted_tokens=self.accepted,
                time_to_first_token_us=self.begun.value,
                time_per_output_token_us=self.decoded.value,
            ),
            pair=block.pair,
            requests=self.requests,
            failed_requests=self.failed,
        )


@dataclass(slots=True)
class _Open:
    """`first`: the block that opened it; `over_at`: when no more requests begin in it."""

    first: Block
    tallies: dict[Arm, _Tally] = field(
        default_factory=lambda: {"stable": _Tally(), "candidate": _Tally()}
    )
    over_at: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether it can be told of: all of its requests have ended, or are given up."""
        if self.over_at is None:
            return False
        is_whole = not any(tally.in_flight for tally in self.tallies.values())
        return is_whole or now - self.over_at >= _DEADLINE_SECONDS

    def outcomes(self) -> tuple[Outcome, ...]:
        """None if it has no request in one of its blocks."""
        if not all(tally.requests for tally in self.tallies.values()):
            return ()
        for tally in self.tallies.values():
            tally.failed += tally.in_flight
        return tuple(tally.outcome(arm, self.first) for arm, tally in self.tallies.items())


class Pairs:
    """Adds up what the requests that began in a pair's blocks say, until it is due.

    Times are seconds of the caller's clock.
    """

    def __init__(self) -> None:
        # In their order.
        self._open: dict[tuple[str, int], _Open] = {}

    def begin(self, block: Block) -> None:
        """A request begins in a block; those of another rollout are forgotten."""
        if any(rollout_id != block.rollout_id for rollout_id, _ in self._open):
            self._open.clear()
        tally = self._open.setdefault(_key(block), _Open(block)).tallies[block.arm]
        tally.requests += 1
        tally.in_flight += 1

    def withdraw(self, block: Block) -> None:
        """A request does not begin in this block after all."""
        if pair := self._open.get(_key(block)):
            pair.tallies[block.arm].requests -= 1
            pair.tallies[block.arm].in_flight -= 1

    def end(self, block: Block, served: Served, *, failed: bool) -> None:
        """A request that began in a block has ended."""
        pair = self._open.get(_key(block))
        if pair is None:
            return
        tally = pair.tallies[block.arm]
        tally.failed += failed
        tally.drafted += served.drafted_tokens
        tally.accepted += served.accepted_tokens
        tally.begun.add(served.time_to_first_token_us)
        tally.decoded.add(served.time_per_output_token_us)
        tally.in_flight -= 1

    def close(self, block: Block, *, now: float) -> None:
        """No more requests begin in a block's pair."""
        if pair := self._open.get(_key(block)):
            pair.over_at = now

    def discard(self, block: Block) -> None:
        """Something broke one of its pair's blocks: the pair is no evidence."""
        self._open.pop(_key(block), None)

    def due(self, now: float) -> tuple[tuple[str, Outcome], ...]:
        """The rollout and the outcomes of the pairs that can be told of now, each once."""
        found: list[tuple[str, Outcome]] = []
        while self._open:
            key, pair = next(iter(self._open.items()))
            if not pair.is_due(now):
                break
            del self._open[key]
            found += [(pair.first.rollout_id, outcome) for outcome in pair.outcomes()]
        return tuple(found)


def _key(block: Block) -> tuple[str, int]:
    return block.rollout_id, block.pair
