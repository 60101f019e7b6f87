"""Is the candidate accepted more often? The same bets over pairs of time blocks.

An engine with one draft slot cannot draw a draft for each request: its drafts alternate in time, in
pairs of blocks, of which a fair coin decides which arm begins (switchback experiments: Bojinov,
Simchi-Levi and Zhao 2023, Management Science 69:3759). The pair is the unit, since requests of one
block share their time.

A pair scores W = Y(candidate) − Y(stable), Y a block's accepted over its drafted tokens. If the
candidate is in neither half of the pair better by more than δ, W − δ lies, whichever way the coin
falls, at or below one of ±w for some w; so the mean of W − δ clipped to ±CLIP is at most 0 for any
CLIP, and a gambler who stakes on that has wealth which is at most 1 on average (see `betting`). A
narrow clip lets him stake much: the noise of a pair is small, and one odd pair must not decide.

What became of the requests counts as in `evidence`: those that failed score 0 under the candidate,
and 1 under the stable draft in the test for better. A block in which nothing was drafted and
nothing failed says nothing, and neither does its pair. A client that leaves is told of by no engine
behind a gateway: its request has no score in either arm.
"""

from __future__ import annotations

from dataclasses import dataclass

from aurora_operator.domain.rollout.betting import bet
from aurora_operator.domain.rollout.outcome import Block, Pair

# Of acceptance, or of a guardrail's score; a pair of 75 requests has a standard deviation of 0.01.
CLIP = 0.05


@dataclass(frozen=True, slots=True)
class PairScores:
    """W as either process counts it, and the acceptance of each block's requests."""

    better: float
    worse: float
    stable: float
    candidate: float


def scores(pair: Pair) -> PairScores | None:
    """None if the pair says nothing."""
    stable, candidate = _acceptance(pair.stable), _acceptance(pair.candidate)
    if stable is None or candidate is None:
        return None
    stable_failed, candidate_failed = _failed(pair.stable), _failed(pair.candidate)
    served = stable * (1 - stable_failed)
    tried = candidate * (1 - candidate_failed)
    return PairScores(
        better=tried - (served + stable_failed),
        worse=tried - served,
        stable=stable,
        candidate=tried,
    )


def bet_on_pair(log_wealth: tuple[float, ...], difference: float) -> tuple[float, ...]:
    """Each gambler's wealth after a pair whose mean difference is at most 0 by hypothesis."""
    return bet(log_wealth, min(max(difference, -CLIP), CLIP), largest_loss=CLIP)


def _acceptance(block: Block) -> float | None:
    """Of the tokens that were drafted; 0 if all that happened is failures."""
    if block.drafted_tokens <= 0:
        return 0.0 if block.failed_requests > 0 else None
    return min(max(block.accepted_tokens / block.drafted_tokens, 0.0), 1.0)


def _failed(block: Block) -> float:
    return min(block.failed_requests / max(block.requests, 1), 1.0)
