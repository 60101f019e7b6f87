"""The reconciler's Inference over gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import grpc

from aurora.inference.v1 import inference_pb2, inference_pb2_grpc
from aurora_common.errors import AuroraError, CheckpointError, UnavailableError
from aurora_common.grpc_server import MESSAGE_OPTIONS
from aurora_operator.adapters.channel import Peer, open_channel
from aurora_operator.domain.plan.action import (
    Action,
    PromoteDraft,
    ReleaseDraft,
    SetTraffic,
    StageDraft,
    UnstageDraft,
)
from aurora_operator.domain.plan.observation import InferenceView, OutcomeBatch, Problem
from aurora_operator.domain.rollout.outcome import Arm, Block, Ending, Outcome, Pair
from aurora_operator.domain.status.deployment import Cursor, Draft, Retained

_CALL_SECONDS = 5.0
# A whole checkpoint is read to verify and load it.
_STAGE_SECONDS = 300.0
_OUTCOMES_PER_CALL = 1000
# A judge that was away catches up over several reconciles rather than in an endless one.
_CALLS_PER_BATCH = 20

# A retry of the same call does not help.
_REFUSALS = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    }
)
_ENDINGS: dict[str, Ending] = {each: each for each in get_args(Ending)}
_SLOTS = {
    "stable": inference_pb2.SLOT_STABLE,
    "candidate": inference_pb2.SLOT_CANDIDATE,
    "retained": inference_pb2.SLOT_RETAINED,
}


class GrpcInference:
    """Error messages leave out its name, which the caller adds."""

    def __init__(self, name: str, peer: Peer) -> None:
        self.name = name
        # Set once it is shutting down.
        self.leaving = False
        self._channel = open_channel(peer, options=MESSAGE_OPTIONS)
        self._stub = inference_pb2_grpc.InferenceStub(self._channel)  # type: ignore[no-untyped-call]

    async def view(self) -> InferenceView:
        """Its current state; UnavailableError if it does not answer."""
        try:
            status = await self._stub.GetStatus(
                inference_pb2.GetStatusRequest(), timeout=_CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error) from error
        return InferenceView(
            name=self.name,
            instance=status.instance,
            stable=_draft(status.stable) if status.HasField("stable") else None,
            candidate=_draft(status.candidate) if status.HasField("candidate") else None,
            rollout_id=status.rollout_id,
            candidate_bps=status.candidate_bps,
            device=status.device,
            problems=tuple(Problem(each.reason, each.message) for each in status.problems),
            retained=tuple(
                Retained(_draft(each.draft), round(each.share_bps / 100))
                for each in status.retained
            ),
        )

    async def outcomes(self, rollout_id: str, cursor: Cursor | None) -> OutcomeBatch:
        """The outcomes of a rollout after the cursor; UnavailableError if it does not answer."""
        cursor = cursor or Cursor("", 0)
        found: list[inference_pb2.Outcome] = []
        for _ in range(_CALLS_PER_BATCH):
            request = inference_pb2.ListOutcomesRequest(
                rollout_id=rollout_id,
                instance=cursor.instance,
                after=cursor.after,
                limit=_OUTCOMES_PER_CALL,
            )
            try:
                page = await self._stub.ListOutcomes(request, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise _unavailable(error) from error
            if page.instance != cursor.instance:
                found = []
            found += page.outcomes
            cursor = Cursor(page.instance, page.next_after)
            if len(page.outcomes) < _OUTCOMES_PER_CALL:
                break
        return OutcomeBatch(
            self.name,
            cursor.instance,
            rollout_id,
            tuple(_counted(found)),
            open_stable=page.unlisted_stable,
            open_candidate=page.unlisted_candidate,
        )

    async def apply(self, action: Action) -> None:
        """Carries out one action.

        Raises CheckpointError if the draft is refused for good, else UnavailableError.
        """
        try:
            await self._call(action)
        except grpc.aio.AioRpcError as error:
            if isinstance(action, StageDraft) and error.code() in _REFUSALS:
                raise CheckpointError(error.details() or error.code().name) from error
            raise _unavailable(error) from error

    async def _call(self, action: Action) -> None:
        match action:
            case StageDraft(slot=slot, draft=draft):
                request = inference_pb2.StageDraftRequest(
                    slot=_SLOTS[slot],
                    draft=inference_pb2.Draft(
                        name=draft.checkpoint, digest=draft.digest, uri=draft.uri
                    ),
                )
                await self._stub.StageDraft(request, timeout=_STAGE_SECONDS)
            case UnstageDraft():
                await self._stub.UnstageDraft(
                    inference_pb2.UnstageDraftRequest(), timeout=_CALL_SECONDS
                )
            case ReleaseDraft(digest=digest):
                await self._stub.UnstageDraft(
                    inference_pb2.UnstageDraftRequest(digest=digest), timeout=_CALL_SECONDS
                )
            case SetTraffic(rollout_id=rollout_id, candidate_bps=candidate_bps, crossed=crossed):
                share = inference_pb2.SetTrafficRequest(
                    rollout_id=rollout_id, candidate_bps=candidate_bps, crossed=crossed
                )
                await self._stub.SetTraffic(share, timeout=_CALL_SECONDS)
            case PromoteDraft(digest=digest):
                await self._stub.PromoteDraft(
                    inference_pb2.PromoteDraftRequest(digest=digest), timeout=_CALL_SECONDS
                )

    async def close(self) -> None:
        await self._channel.close(grace=None)


def _draft(draft: inference_pb2.Draft) -> Draft:
    return Draft(draft.name, draft.digest, draft.uri)


def _counted(found: Sequence[inference_pb2.Outcome]) -> Iterator[tuple[int, Outcome | Pair]]:
    """Requests and pairs of blocks; a pair of which half is listed waits for the next time."""
    former = None
    for outcome in found:
        if not outcome.pair:
            yield outcome.sequence, _outcome(outcome)
        elif former is not None and former.pair == outcome.pair:
            yield outcome.sequence, _pair(former, outcome)
        former = outcome


def _pair(first: inference_pb2.Outcome, second: inference_pb2.Outcome) -> Pair:
    stable, candidate = (second, first) if first.arm == "candidate" else (first, second)
    return Pair(_block(stable), _block(candidate), stable.stable_digest, candidate.candidate_digest)


def _block(outcome: inference_pb2.Outcome) -> Block:
    return Block(
        outcome.requests,
        outcome.failed_requests,
        outcome.drafted_tokens,
        outcome.accepted_tokens,
        outcome.time_per_output_token_us,
        outcome.time_to_first_token_us,
    )


def _outcome(outcome: inference_pb2.Outcome) -> Outcome:
    arm: Arm = "candidate" if outcome.arm == "candidate" else "stable"
    return Outcome(
        arm=arm,
        candidate_bps=outcome.candidate_bps,
        drafted_tokens=outcome.drafted_tokens,
        accepted_tokens=outcome.accepted_tokens,
        # What only a later inference knows was no success.
        ending=_ENDINGS.get(outcome.ending, "failed"),
        time_per_output_token_us=outcome.time_per_output_token_us,
        time_to_first_token_us=outcome.time_to_first_token_us,
        step_time_us=outcome.step_time_us,
        stable_step_time_us=outcome.stable_step_time_us,
        stable_digest=outcome.stable_digest,
        candidate_digest=outcome.candidate_digest,
    )


def _unavailable(error: grpc.aio.AioRpcError) -> AuroraError:
    return UnavailableError(f"answers {error.code().name}: {error.details()}")
