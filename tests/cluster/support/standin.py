"""Stand-ins for inference and trainer: the real contracts over simulated traffic."""

from __future__ import annotations

import asyncio
import hashlib
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aurora.inference.v1 import inference_pb2, inference_pb2_grpc
from aurora.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from aurora_common.errors import CheckpointError, ConflictError, UnavailableError

DRAFTED_TOKENS = 20
TOKEN_US = 20_000
_REQUESTS_PER_POLL = 50
_STOPPED_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Effect:
    """A call that changed something at a pod."""

    method: str
    pod: str


def _nothing(effect: Effect, before: bool) -> None:
    """The default hook."""


@dataclass(slots=True)
class World:
    """The state of all stand-ins, which a test sets and reads.

    `acceptance`: by digest, of drafts whose acceptance is not 0.5. `slowdown`: by digest, how many
    times as long a token takes. `refusals`: why a draft is refused, by digest, or by the pod that
    refuses every draft. `hindrances`: by pod or deployment, why it cannot stage now. `complaints`,
    `troubles`: by deployment, what its inferences or its trainer say of themselves. `unfollowed`,
    `unpruned`: by deployment, why its trainer refuses to be followed, or to prune and to keep
    records, which are in `records` by namespace and deployment. `on_effect` is
    called right before (True) and right after each change, before its caller gets the answer.
    `requests_per_poll`: the requests served between two listings of the outcomes. `promotions`:
    pods and digests, in order. `recorded`: by namespace and deployment, what its model store has.
    """

    acceptance: dict[str, float] = field(default_factory=dict)
    slowdown: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    hindrances: dict[str, str] = field(default_factory=dict)
    complaints: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    unfollowed: dict[str, str] = field(default_factory=dict)
    unpruned: dict[str, str] = field(default_factory=dict)
    on_effect: Callable[[Effect, bool], None] = _nothing
    requests_per_poll: int = _REQUESTS_PER_POLL
    promotions: list[tuple[str, str]] = field(default_factory=list)
    checkpoints: dict[tuple[str, str], list[trainer_pb2.Checkpoint]] = field(
        default_factory=lambda: defaultdict(list)
    )
    pruned: list[trainer_pb2.PruneCheckpointsRequest] = field(default_factory=list)
    records: dict[tuple[str, str], dict[str, bytes]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    recorded: dict[tuple[str, str], trainer_pb2.PruneCheckpointsRequest] = field(
        default_factory=dict
    )

    def reset(self) -> None:
        """Resets what a test set; published checkpoints stay."""
        for told in (
            *(self.refusals, self.hindrances, self.complaints),
            *(self.troubles, self.unfollowed, self.unpruned),
        ):
            told.clear()
        self.on_effect = _nothing
        self.requests_per_poll = _REQUESTS_PER_POLL


def digest_of(text: str) -> str:
    """The digest of a checkpoint with this content or URI."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class InferenceStandin(inference_pb2_grpc.InferenceServicer):
    """One run of one pod's inference: it begins with empty slots and a new instance."""

    def __init__(self, world: World, pod: str) -> None:
        self.world = world
        self._pod = pod
        self._deployment = pod.partition("-inference")[0]
        self.instance = uuid.uuid4().hex
        self._draw = random.Random(self.instance)
        self.stable: inference_pb2.Draft | None = None
        self.candidate: inference_pb2.Draft | None = None
        self.retained: dict[str, inference_pb2.Draft] = {}
        self.rollout_id, self.candidate_bps = "", 0
        self._outcomes: list[inference_pb2.Outcome] = []
        self._listed = 0

    @property
    def is_drained(self) -> bool:
        """Whether the judge has seen every outcome of a live rollout."""
        return not self.candidate_bps or self._listed == len(self._outcomes)

    async def StageDraft(self, request: Any, context: Any) -> Any:  # noqa: N802
        draft = request.draft
        if not draft.digest:
            draft.digest = digest_of(draft.uri)
        for key in (draft.digest, self._pod):
            if key in self.world.refusals:
                raise CheckpointError(self.world.refusals[key])
        for key in (self._pod, self._deployment):
            if key in self.world.hindrances:
                raise UnavailableError(self.world.hindrances[key])
        with _Reported(self.world, "StageDraft", self._pod):
            if request.slot == inference_pb2.SLOT_STABLE:
                self.stable = draft
            elif request.slot == inference_pb2.SLOT_RETAINED:
                self.retained[draft.digest] = draft
            else:
                self.candidate = draft
        return inference_pb2.StageDraftResponse()

    async def UnstageDraft(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _Reported(self.world, "UnstageDraft", self._pod):
            if request.digest:
                self.retained.pop(request.digest, None)
                return inference_pb2.UnstageDraftResponse()
            self.candidate, self.rollout_id, self.candidate_bps = None, "", 0
        return inference_pb2.UnstageDraftResponse()

    async def PromoteDraft(self, request: Any, context: Any) -> Any:  # noqa: N802
        with _Reported(self.world, "PromoteDraft", self._pod):
            if self.stable is None or self.stable.digest != request.digest:
                if self.candidate is None or self.candidate.digest != request.digest:
                    raise ConflictError("the candidate is another")
                self.stable, self.candidate = self.candidate, None
                self.rollout_id, self.candidate_bps = "", 0
                self.world.promotions.append((self._pod, request.digest))
        return inference_pb2.PromoteDraftResponse(pause_microseconds=1)

    async def SetTraffic(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.candidate_bps and self.candidate is None:
            raise ConflictError("no candidate is staged")
        with _Reported(self.world, "SetTraffic", self._pod):
            if request.rollout_id and request.rollout_id != self.rollout_id:
                self._outcomes, self._listed = [], 0
            self.rollout_id, self.candidate_bps = request.rollout_id, request.candidate_bps
        return inference_pb2.SetTrafficResponse()

    async def ListOutcomes(self, request: Any, context: Any) -> Any:  # noqa: N802
        after = request.after if request.instance == self.instance else 0
        mine = self._outcomes if request.rollout_id == self.rollout_id else []
        if mine is self._outcomes and self.candidate_bps:
            for _ in range(self.world.requests_per_poll):
                self._serve()
        found = mine[after : after + (request.limit or 1000)]
        last = found[-1].sequence if found else after
        if mine is self._outcomes:
            self._listed = max(self._listed, last)
        return inference_pb2.ListOutcomesResponse(
            instance=self.instance, outcomes=found, next_after=last
        )

    async def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return inference_pb2.GetStatusResponse(
            instance=self.instance,
            stable=self.stable,
            candidate=self.candidate,
            rollout_id=self.rollout_id,
            candidate_bps=self.candidate_bps,
            retained=[
                inference_pb2.RetainedDraft(draft=draft, share_bps=1000)
                for draft in self.retained.values()
            ],
            problems=[
                inference_pb2.Problem(reason="NothingRecorded", message=told)
                for name, told in self.world.complaints.items()
                if name == self._deployment
            ],
        )

    def _serve(self) -> None:
        """Serves one simulated request."""
        chosen = self._draw.random() * 10_000 < self.candidate_bps
        draft = self.candidate if chosen else self.stable
        rate = self.world.acceptance.get(draft.digest, 0.5) if draft else 0.0
        slowdown = self.world.slowdown.get(draft.digest, 1.0) if draft else 1.0
        accepted = sum(self._draw.random() < rate for _ in range(DRAFTED_TOKENS))
        self._outcomes.append(
            inference_pb2.Outcome(
                sequence=len(self._outcomes) + 1,
                arm="candidate" if chosen else "stable",
                candidate_bps=self.candidate_bps,
                drafted_tokens=DRAFTED_TOKENS if draft else 0,
                accepted_tokens=accepted,
                time_per_output_token_us=round(TOKEN_US * slowdown),
                stable_digest=self.stable.digest if self.stable else "",
                candidate_digest=self.candidate.digest if self.candidate else "",
                ending="completed",
            )
        )


class TrainerStandin(trainer_pb2_grpc.TrainerServicer):
    """Streams the checkpoints that the test published, which outlive the trainer's pod."""

    def __init__(self, world: World, namespace: str, deployment: str) -> None:
        self._world = world
        self._namespace, self._deployment = namespace, deployment
        self._store = (namespace, deployment)
        self._checkpoints = world.checkpoints[namespace, deployment]
        self._closed = False

    def close(self) -> None:
        """Ends the streams."""
        self._closed = True

    async def WatchCheckpoints(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        if self._deployment in self._world.unfollowed:
            raise UnavailableError(self._world.unfollowed[self._deployment])
        after = request.after_sequence
        while not self._closed:
            for checkpoint in list(self._checkpoints):
                if checkpoint.sequence > after:
                    after = checkpoint.sequence
                    yield checkpoint
            await asyncio.sleep(_STOPPED_SECONDS)
        raise UnavailableError("the trainer stops")

    async def PruneCheckpoints(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self._deployment in self._world.unpruned:
            raise UnavailableError(self._world.unpruned[self._deployment])
        with _Reported(self._world, "PruneCheckpoints", "trainer"):
            self._world.pruned.append(request)
            if request.record_stable:
                self._world.recorded[self._store] = request
        return trainer_pb2.PruneCheckpointsResponse()

    async def KeepRolloutRecord(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self._deployment in self._world.unpruned:
            raise UnavailableError(self._world.unpruned[self._deployment])
        records = self._world.records[self._namespace, self._deployment]
        records[request.name] = request.content
        return trainer_pb2.KeepRolloutRecordResponse()

    async def WatchStatus(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        shown = None
        while not self._closed:
            if (status := await self.GetStatus(request, context)) != shown:
                shown = status
                yield status
            await asyncio.sleep(_STOPPED_SECONDS)
        raise UnavailableError("the trainer stops")

    async def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        published = self._checkpoints[-1] if self._checkpoints else trainer_pb2.Checkpoint()
        return trainer_pb2.GetStatusResponse(
            phase="WaitingForTrajectories",
            published=len(self._checkpoints),
            min_new_trajectories=48,
            steps_per_round=60,
            checkpoint=published.name,
            problem=self._world.troubles.get(self._deployment, ""),
            restorable=self._restorable(),
        )

    def _restorable(self) -> trainer_pb2.Restorable | None:
        record = self._world.recorded.get(self._store)
        for checkpoint in self._checkpoints:
            if record is not None and checkpoint.digest == record.stable_digest:
                return trainer_pb2.Restorable(
                    draft=checkpoint,
                    seen_sequence=record.seen_sequence,
                    attempts=record.attempts,
                )
        return None


class _Reported:
    """Reports an effect to the world before it, and after it unless it failed."""

    def __init__(self, world: World, method: str, pod: str) -> None:
        self._world, self._effect = world, Effect(method, pod)

    def __enter__(self) -> None:
        self._world.on_effect(self._effect, True)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._world.on_effect(self._effect, False)
