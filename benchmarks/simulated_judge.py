"""The stream of recorded requests, and the trainer's judge, who scores what it may of them."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from aurora_common.stream_id import stream_order
from aurora_operator.domain.plan.observation import ReplayBatch
from aurora_operator.domain.rollout.replay import Score
from aurora_operator.domain.status.deployment import Rollout

_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Replayed:
    """What replaying a request shows of both drafts: the verify steps that each needs."""

    domain: str
    output_tokens: int
    stable_steps: float
    candidate_steps: float


class SimulatedJudge:
    """Answers for any position in the stream, as the trainer's does."""

    def __init__(self) -> None:
        self.scores: list[Score] = []
        self._recorded = 0
        # The position in the stream of each score.
        self._positions: list[int] = []

    def record(self, replayed: Replayed | None) -> None:
        """A request is appended to the stream; None: it has no score."""
        self._recorded += 1
        if replayed is None:
            return
        self._positions.append(self._recorded)
        self.scores.append(
            Score(
                _stream_id(self._recorded),
                replayed.domain,
                replayed.output_tokens,
                replayed.stable_steps,
                replayed.candidate_steps,
            )
        )

    def batch(self, rollout: Rollout) -> ReplayBatch | None:
        """The next page after the status's cursor; None if the rollout is not judged by replay."""
        replay = rollout.evidence.replay
        if replay is None:
            return None
        begin = bisect.bisect_right(self._positions, stream_order(replay.after)[0])
        page = tuple(self.scores[begin : begin + _LIMIT])
        is_last = begin + len(page) == len(self.scores)
        position = _stream_id(self._recorded) if is_last else page[-1].id
        return ReplayBatch(rollout.id, page, after=position)


def _stream_id(position: int) -> str:
    return f"{position}-0"
