"""Pairs of time blocks, of which each arm gets one: the unit of evidence of a switchback canary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from aurora_inference.contract import Arm, Outcome

# What a pair should hold, and the bounds of its blocks.
_REQUESTS_PER_PAIR = 30
_SHORTEST_BLOCK_SECONDS = 2.0
_LONGEST_BLOCK_SECONDS = 600.0
_GROWTH = 4.0


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
class _Tally:
    requests: int = 0
    failed: int = 0
    drafted: int = 0
    accepted: int = 0
    timed: int = 0
    microseconds: int = 0

    def outcome(self, arm: Arm, block: Block) -> Outcome:
        """`block`: one of the pair's."""
        return Outcome(
            arm=arm,
            stable_digest=block.stable_digest,
            candidate_digest=block.candidate_digest,
            candidate_bps=block.candidate_bps,
            ending="failed" if self.failed else "completed",
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            time_per_output_token_us=self.microseconds // self.timed if self.timed else 0,
            pair=block.pair,
            requests=self.requests,
            failed_requests=self.failed,
        )


@dataclass(slots=True)
class _Open:
    """`first`: the block that opened it."""

    first: Block
    tallies: dict[Arm, _Tally] = field(
        default_factory=lambda: {"stable": _Tally(), "candidate": _Tally()}
    )
    in_flight: int = 0
    over: bool = False


class Pairs:
    """Adds up what the requests that began in a pair's blocks say, until the last one has ended."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}

    def begin(self, block: Block) -> None:
        """A request begins in a block."""
        pair = self._open.setdefault(block.pair, _Open(block))
        pair.tallies[block.arm].requests += 1
        pair.in_flight += 1

    def withdraw(self, block: Block) -> None:
        """A request does not begin in this block after all."""
        if pair := self._open.get(block.pair):
            pair.tallies[block.arm].requests -= 1
            pair.in_flight -= 1

    def end(
        self, block: Block, *, drafted: int, accepted: int, failed: bool, token_us: int
    ) -> tuple[Outcome, ...]:
        """A request that began in a block has ended; returns the pair's outcomes if it is whole.

        `token_us`: its time for each output token but the first, in microseconds; 0 if unknown.
        """
        pair = self._open.get(block.pair)
        if pair is None:
            return ()
        tally = pair.tallies[block.arm]
        tally.failed += failed
        tally.drafted += drafted
        tally.accepted += accepted
        tally.timed += token_us > 0
        tally.microseconds += token_us
        pair.in_flight -= 1
        return self._whole(block.pair)

    def close(self, number: int) -> tuple[Outcome, ...]:
        """No more requests begin in this pair; returns its outcomes if it is whole."""
        if number not in self._open:
            return ()
        self._open[number].over = True
        return self._whole(number)

    def discard(self, number: int) -> None:
        """Something broke one of its blocks: it is no evidence."""
        self._open.pop(number, None)

    def _whole(self, number: int) -> tuple[Outcome, ...]:
        pair = self._open[number]
        if not pair.over or pair.in_flight:
            return ()
        del self._open[number]
        if not all(tally.requests for tally in pair.tallies.values()):
            return ()
        return tuple(tally.outcome(arm, pair.first) for arm, tally in pair.tallies.items())
