"""The trainer over gRPC: its checkpoints, the records beside them, and what replay finds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import grpc

from aurora.trainer.v1 import judge_pb2, judge_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_operator.adapters.channel import Peer, open_channel
from aurora_operator.domain.plan.housekeeping import Housekeeping
from aurora_operator.domain.plan.observation import ReplayBatch, Restorable, TrainerView
from aurora_operator.domain.rollout.parity import Agreement
from aurora_operator.domain.rollout.replay import Score
from aurora_operator.domain.status.deployment import Candidate, Draft, Verdict
from aurora_operator.reconcile.fleet import Comparison

logger = logging.getLogger(__name__)

# A stream is renewed after this: its peer may be gone without closing the connection.
_STREAM_SECONDS = 300.0
_RETRY_SECONDS = 0.5
# A stream that is denied ends sooner.
_QUIET_SECONDS = 5.0
_PRUNE_SECONDS = 30.0
_SCORES_SECONDS = 2.0
_RECORD_SECONDS = 10.0
# An older trainer keeps no records.
_LASTING = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)


class CheckpointFeed:
    """Follows one trainer; `after_sequence` returns the last sequence that was seen."""

    def __init__(self, peer: Peer, after_sequence: Callable[[], int]) -> None:
        self._channel = open_channel(peer)
        self._stub = trainer_pb2_grpc.TrainerStub(self._channel)  # type: ignore[no-untyped-call]
        self._judge = judge_pb2_grpc.JudgeStub(self._channel)  # type: ignore[no-untyped-call]
        self._after_sequence = after_sequence
        # The last error of the stream, and when it was seen (monotonic).
        self._error = ""
        self._failed_at = 0.0
        self._viewed = asyncio.Event()

    @property
    def failure(self) -> str:
        """Why the trainer cannot be followed; empty if it can, or if that is not known yet."""
        is_connected = self._channel.get_state() is grpc.ChannelConnectivity.READY
        is_quiet = time.monotonic() - self._failed_at > _QUIET_SECONDS
        return "" if is_connected and is_quiet else self._error

    async def checkpoints(self) -> AsyncIterator[Candidate]:
        """Every checkpoint published after `after_sequence()`, at least once; never ends.

        None before the first view: what can be restored comes before what can be tried.
        """
        await self._viewed.wait()
        while True:
            request = trainer_pb2.WatchCheckpointsRequest(after_sequence=self._after_sequence())
            try:
                async for checkpoint in self._stub.WatchCheckpoints(
                    request, timeout=_STREAM_SECONDS
                ):
                    yield _candidate(checkpoint)
            except grpc.aio.AioRpcError as error:
                self._failed(error)
                _report("checkpoint", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def views(self) -> AsyncIterator[TrainerView]:
        """What the trainer does, now and at each change; never ends."""
        while True:
            try:
                async for status in self._stub.WatchStatus(
                    trainer_pb2.WatchStatusRequest(), timeout=_STREAM_SECONDS
                ):
                    yield _view(status)
                    self._viewed.set()
            except grpc.aio.AioRpcError as error:
                if not self._viewed.is_set():
                    self._failed(error)
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    # An older trainer, until its pod is replaced.
                    self._viewed.set()
                    await asyncio.sleep(_STREAM_SECONDS)
                _report("status", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def prune(self, wanted: Housekeeping) -> None:
        """Has old checkpoints removed and the stable one recorded, and tells what is to be known.

        Raises UnavailableError if the call fails.
        """
        stable = wanted.stable
        request = trainer_pb2.PruneCheckpointsRequest(
            keep=wanted.keep,
            needed_digests=sorted(wanted.needed),
            seen_sequence=wanted.seen_sequence,
            stable_digest="" if stable is None else stable.digest,
            stable_uri="" if stable is None else stable.uri,
            verdicts=[_verdict(verdict) for verdict in reversed(wanted.verdicts)],
            record_stable=wanted.records,
            attempts=wanted.attempts,
        )
        try:
            await self._stub.PruneCheckpoints(request, timeout=_PRUNE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise UnavailableError(f"trainer: {error.details() or error.code().name}") from error

    async def keep_record(self, name: str, content: bytes) -> None:
        """Keeps the record of an ended rollout in the model store.

        Raises UnavailableError, or InvalidInputError if it is of no use to try again.
        """
        request = trainer_pb2.KeepRolloutRecordRequest(name=name, content=content)
        try:
            await self._stub.KeepRolloutRecord(request, timeout=_RECORD_SECONDS)
        except grpc.aio.AioRpcError as error:
            cause = f"trainer: {error.details() or error.code().name}"
            if error.code() in _LASTING:
                raise InvalidInputError(cause) from error
            raise UnavailableError(cause) from error

    async def replay(self, comparison: Comparison) -> ReplayBatch:
        """The next scores of both drafts, which may be none yet; raises UnavailableError."""
        request = judge_pb2.ListScoresRequest(
            stable=_judged(comparison.stable),
            candidate=_judged(comparison.candidate),
            begin=comparison.begin,
            after=comparison.after,
            greedy_drafts=comparison.greedy_drafts,
            speculation_length=comparison.speculation_length,
            any_shape=comparison.any_shape,
        )
        try:
            response = await self._judge.ListScores(request, timeout=_SCORES_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise UnavailableError(f"trainer: {error.details() or error.code().name}") from error
        return ReplayBatch(
            rollout_id=comparison.rollout_id,
            scores=tuple(_score(score) for score in response.scores),
            after=response.next_after,
            refusal=response.refusal,
            agreements=tuple(_agreement(each) for each in response.agreements),
        )

    async def close(self) -> None:
        await self._channel.close(grace=None)

    def _failed(self, error: grpc.aio.AioRpcError) -> None:
        self._failed_at = time.monotonic()
        self._error = error.details() or error.code().name


def _verdict(verdict: Verdict) -> trainer_pb2.Verdict:
    return trainer_pb2.Verdict(
        rollout_id=verdict.id,
        digest=verdict.digest,
        outcome=verdict.outcome,
        reason=verdict.reason,
        effect_bps=verdict.effect_bps,
        saved_bps=verdict.saved_bps,
        at_ms=round(verdict.at.timestamp() * 1000),
    )


def _judged(draft: Draft) -> judge_pb2.JudgedDraft:
    return judge_pb2.JudgedDraft(digest=draft.digest, uri=draft.uri)


def _score(score: judge_pb2.Score) -> Score:
    return Score(
        id=score.id,
        domain=score.domain,
        output_tokens=score.output_tokens,
        stable_steps=score.stable_steps,
        candidate_steps=score.candidate_steps,
        shapes_differ=score.shapes_differ,
    )


def _agreement(found: judge_pb2.Agreement) -> Agreement:
    return Agreement(
        digest=found.digest,
        requests=found.requests,
        tested=found.tested_tokens,
        accepted=found.accepted_tokens,
        predicted=found.predicted_tokens,
        variance=found.variance,
    )


def _report(stream: str, error: grpc.aio.AioRpcError) -> None:
    if error.code() not in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    ):
        fields = {"stream": stream, "code": error.code().name, "details": error.details()}
        logger.warning("trainer's stream failed; will retry", extra={"fields": fields})


def _view(status: trainer_pb2.GetStatusResponse) -> TrainerView:
    return TrainerView(
        phase=status.phase,
        min_new_trajectories=status.min_new_trajectories,
        steps_per_round=status.steps_per_round,
        checkpoint=status.checkpoint,
        acceptance_bps=(
            round(status.acceptance * 10_000) if status.HasField("acceptance") else None
        ),
        problem=status.problem,
        withheld=status.withheld,
        restorable=_restorable(status.restorable) if status.HasField("restorable") else None,
    )


def _restorable(found: trainer_pb2.Restorable) -> Restorable:
    return Restorable(_candidate(found.draft), found.seen_sequence, found.attempts)


def _candidate(checkpoint: trainer_pb2.Checkpoint) -> Candidate:
    return Candidate(
        draft=Draft(checkpoint.name, checkpoint.digest, checkpoint.uri),
        sequence=checkpoint.sequence,
        trained_through=checkpoint.trained_through,
        held_out_bps=round(checkpoint.acceptance * 10_000) or None,
    )
