"""aurora.trainer.v1: published checkpoints and training status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from aurora.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_common.store.published import PublishedDraft, PublishedDrafts
from aurora_common.store.stable import Restorable, StableFile, StableRecord
from aurora_trainer.progress import Trigger
from aurora_trainer.published import checkpoint_name, published_after
from aurora_trainer.rollout_records import keep_record
from aurora_trainer.standing import Pace, Standing
from aurora_trainer.verdict import StableDraft, Verdict

SERVICE = "aurora.trainer.v1.Trainer"

# How soon a watch of the status notices another phase.
_WATCH_SECONDS = 0.5
# How soon a watch notices a checkpoint that another process placed in the models folder.
_LOOK_SECONDS = 2.0

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class TrainerServicer(trainer_pb2_grpc.TrainerServicer):
    """Serves the models folder and the trainer's standing; prunes checkpoints on request."""

    def __init__(
        self,
        models: Path,
        standing: Callable[[], Standing],
        trigger: Trigger,
        *,
        steps_per_round: int,
        pace: Callable[[], Pace],
        problem: Callable[[], str],
        on_stable: Callable[[StableDraft], None],
        on_verdicts: Callable[[Sequence[Verdict]], None],
        is_target: Callable[[str], bool],
    ) -> None:
        """`on_stable` gets the draft that serves, `on_verdicts` how the last rollouts ended;
        `is_target` says whether a digest is the target's."""
        self._models = models
        self._standing = standing
        self._trigger = trigger
        self._steps_per_round = steps_per_round
        self._pace = pace
        self._problem = problem
        self._on_stable = on_stable
        self._on_verdicts = on_verdicts
        self._stable = StableFile(models, is_target)
        self._news = asyncio.Condition()
        self._closing = False

    async def announce(self) -> None:
        """Makes every watch re-read the models folder."""
        async with self._news:
            self._news.notify_all()

    async def close(self) -> None:
        """Ends every watch with UNAVAILABLE, because the server is stopping."""
        self._closing = True
        await self.announce()

    async def WatchCheckpoints(  # noqa: N802 - the name in the protocol
        self, request: trainer_pb2.WatchCheckpointsRequest, context: Context
    ) -> AsyncIterator[trainer_pb2.Checkpoint]:
        sequence = request.after_sequence
        while True:
            async with self._news:
                if self._closing:
                    raise UnavailableError("the trainer is stopping; watch again")
                found = await asyncio.to_thread(published_after, self._models, sequence)
                if not found:
                    await self._wait(_LOOK_SECONDS)
            for checkpoint in found:
                yield _message(checkpoint)
                sequence = checkpoint.sequence

    async def PruneCheckpoints(  # noqa: N802 - the name in the protocol
        self, request: trainer_pb2.PruneCheckpointsRequest, context: Context
    ) -> trainer_pb2.PruneCheckpointsResponse:
        if request.keep < 1:
            raise InvalidInputError("keep is 0; allowed is at least 1")
        if request.stable_digest:
            self._on_stable(StableDraft(request.stable_digest, request.stable_uri))
            if request.record_stable:
                record = StableRecord(
                    request.stable_digest, request.seen_sequence, request.attempts
                )
                await asyncio.to_thread(self._stable.write, record)
        self._on_verdicts(tuple(_verdict(verdict) for verdict in request.verdicts))
        removed = await asyncio.to_thread(
            PublishedDrafts(self._models).prune,
            keep=request.keep,
            needed=frozenset(request.needed_digests),
            seen_sequence=request.seen_sequence,
        )
        return trainer_pb2.PruneCheckpointsResponse(removed=removed)

    async def KeepRolloutRecord(  # noqa: N802 - the name in the protocol
        self, request: trainer_pb2.KeepRolloutRecordRequest, context: Context
    ) -> trainer_pb2.KeepRolloutRecordResponse:
        await asyncio.to_thread(keep_record, self._models, request.name, request.content)
        return trainer_pb2.KeepRolloutRecordResponse()

    async def GetStatus(  # noqa: N802 - the name in the protocol
        self, request: trainer_pb2.GetStatusRequest, context: Context
    ) -> trainer_pb2.GetStatusResponse:
        return await self._status(self._standing())

    async def WatchStatus(  # noqa: N802 - the name in the protocol
        self, request: trainer_pb2.WatchStatusRequest, context: Context
    ) -> AsyncIterator[trainer_pb2.GetStatusResponse]:
        shown: object = None
        while True:
            standing = self._standing()
            progress = standing.progress
            state = (
                progress.phase,
                progress.sequence,
                progress.withheld,
                progress.waiting,
                self._problem(),
            )
            if state != shown:
                shown = state
                yield await self._status(standing)
            async with self._news:
                if self._closing:
                    raise UnavailableError("the trainer is stopping; watch again")
                await self._wait(_WATCH_SECONDS)

    async def _wait(self, seconds: float) -> None:
        """For news, which must be held, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def _status(self, standing: Standing) -> trainer_pb2.GetStatusResponse:
        progress = standing.progress
        newest = await asyncio.to_thread(published_after, self._models, progress.sequence - 1)
        last = newest[-1] if newest else None
        pace = self._pace()
        return trainer_pb2.GetStatusResponse(
            phase=progress.phase,
            trajectories=progress.trajectories,
            new_trajectories=progress.new_trajectories,
            stream_position=progress.position,
            optimizer_steps=standing.optimizer_steps,
            published=progress.sequence,
            loss=progress.loss,
            training_seconds=progress.training_seconds,
            replicas=standing.replicas,
            min_new_trajectories=self._trigger.min_new_trajectories,
            steps_per_round=self._steps_per_round,
            steps_left=progress.steps_left,
            eta_seconds=standing.eta_seconds,
            checkpoint="" if last is None else checkpoint_name(last.sequence),
            acceptance=None if last is None else (last.manifest.metrics or {}).get("acceptance"),
            problem=self._problem(),
            withheld=progress.withheld,
            waiting=progress.waiting,
            max_share_percent=pace.max_share_percent,
            training_share=pace.share,
            pause_seconds=pace.waits_seconds,
            skipped=progress.skip_reasons,
            restorable=_restorable(await asyncio.to_thread(self._stable.restorable)),
        )


def _verdict(message: trainer_pb2.Verdict) -> Verdict:
    return Verdict(
        rollout_id=message.rollout_id,
        digest=message.digest,
        outcome=message.outcome,
        reason=message.reason,
        effect_bps=message.effect_bps,
        saved_bps=message.saved_bps if message.HasField("saved_bps") else None,
        at_ms=message.at_ms,
    )


def _restorable(found: Restorable | None) -> trainer_pb2.Restorable | None:
    if found is None:
        return None
    return trainer_pb2.Restorable(
        draft=_message(found.draft),
        seen_sequence=found.record.seen_sequence,
        attempts=found.record.attempts,
    )


def _message(published: PublishedDraft) -> trainer_pb2.Checkpoint:
    manifest = published.manifest
    metrics = manifest.metrics or {}
    return trainer_pb2.Checkpoint(
        sequence=published.sequence,
        name=checkpoint_name(published.sequence),
        digest=manifest.digest,
        uri=published.folder.resolve().as_uri(),
        parent_digest=manifest.parent_digest,
        trained_through=manifest.trained_through,
        trajectories=int(metrics.get("trajectories", 0)),
        loss=metrics.get("loss", 0.0),
        acceptance=metrics.get("acceptance", 0.0),
        published_at_ms=manifest.created_at_ms,
    )
