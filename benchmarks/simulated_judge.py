"""The stream of recorded requests, and the trainer's judge, who scores what it may of them."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from aurora.buffer.v1 import buffer_pb2
from aurora_common.stream_id import stream_order
from aurora_inference.trajectory.admission import Admission
from aurora_operator.domain.plan.observation import ReplayBatch
from aurora_operator.domain.rollout.replay import Score
from aurora_operator.domain.status.deployment import Rollout
from aurora_trainer.judge.order import AdmissionOrder

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
        self._order: AdmissionOrder[Replayed | None] = AdmissionOrder("")
        self._recorded = 0
        self._last_id = ""
        # The position in the stream at which each was judged.
        self._positions: list[tuple[int, int]] = []

    def record(self, now: float, admission: Admission, replayed: Replayed | None) -> None:
        """A request is appended to the stream at `now` seconds; None: it has no score."""
        self._recorded += 1
        self._last_id = f"{int(now * 1000)}-{self._recorded}"
        message = buffer_pb2.Admission(
            engine=admission.engine, at_us=admission.at_us, open_since_us=admission.open_since_us
        )
        for each in self._order.read(self._last_id, message, replayed):
            if each is None:
                continue
            self._positions.append(stream_order(self._last_id))
            self.scores.append(
                Score(
                    self._last_id,
                    each.domain,
                    each.output_tokens,
                    each.stable_steps,
                    each.candidate_steps,
                )
            )

    def batch(self, rollout: Rollout) -> ReplayBatch | None:
        """The next page after the status's cursor; None if the rollout is not judged by replay."""
        replay = rollout.evidence.replay
        if replay is None:
            return None
        positions = self._positions
        begin = bisect.bisect_right(positions, stream_order(replay.after))
        end = begin + _LIMIT
        if end >= len(positions):
            return ReplayBatch(rollout.id, tuple(self.scores[begin:]), after=self._last_id)
        # Those of one position come together.
        end = bisect.bisect_right(positions, positions[end - 1])
        page = tuple(self.scores[begin:end])
        return ReplayBatch(rollout.id, page, after=page[-1].id)
