"""The verbs of aurora.inference.v1 that every engine behind the contract serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic

import grpc

from aurora.inference.v1 import inference_pb2, inference_pb2_grpc
from aurora_common.errors import AuroraError, InvalidInputError
from aurora_inference.contract import Cursor, DraftCounters, DraftReference, Slot
from aurora_inference.serving.gate import B, Gate, lasting_problems

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

_DEFAULT_OUTCOMES = 1000
_UINT32_MAX = (1 << 32) - 1

Context = grpc.aio.ServicerContext[Any, Any]

_SLOTS: dict[int, Slot] = {
    inference_pb2.SLOT_STABLE: "stable",
    inference_pb2.SLOT_CANDIDATE: "candidate",
    inference_pb2.SLOT_RETAINED: "retained",
}


class NotServedError(AuroraError):
    """The method exists, but this engine does not serve it."""

    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class ControlServicer(inference_pb2_grpc.InferenceServicer, Generic[B]):
    """Every call is UNAVAILABLE until the gate opens."""

    def __init__(self, gate: Gate[B]) -> None:
        self._gate = gate

    async def Generate(  # noqa: N802 - the proto's name
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        raise NotServedError("Generate is not served here: use the engine's OpenAI endpoints")
        yield

    async def StageDraft(  # noqa: N802
        self, request: inference_pb2.StageDraftRequest, context: Context
    ) -> inference_pb2.StageDraftResponse:
        slot = _SLOTS.get(request.slot)
        if slot is None:
            raise InvalidInputError(
                "slot is unspecified; allowed are SLOT_STABLE, SLOT_CANDIDATE, SLOT_RETAINED"
            )
        draft = DraftReference(request.draft.name, request.draft.digest, request.draft.uri)
        await self._gate.serving.engine.stage(slot, draft)
        return inference_pb2.StageDraftResponse()

    async def UnstageDraft(  # noqa: N802
        self, request: inference_pb2.UnstageDraftRequest, context: Context
    ) -> inference_pb2.UnstageDraftResponse:
        engine = self._gate.serving.engine
        await (engine.release(request.digest) if request.digest else engine.unstage())
        return inference_pb2.UnstageDraftResponse()

    async def PromoteDraft(  # noqa: N802
        self, request: inference_pb2.PromoteDraftRequest, context: Context
    ) -> inference_pb2.PromoteDraftResponse:
        receipt = await self._gate.serving.engine.promote(request.digest)
        return inference_pb2.PromoteDraftResponse(
            pause_microseconds=min(receipt.pause_microseconds, _UINT32_MAX)
        )

    async def SetTraffic(  # noqa: N802
        self, request: inference_pb2.SetTrafficRequest, context: Context
    ) -> inference_pb2.SetTrafficResponse:
        await self._gate.serving.engine.split(
            request.rollout_id, request.candidate_bps, crossed=request.crossed
        )
        return inference_pb2.SetTrafficResponse()

    async def ListOutcomes(  # noqa: N802
        self, request: inference_pb2.ListOutcomesRequest, context: Context
    ) -> inference_pb2.ListOutcomesResponse:
        page = await self._gate.serving.engine.outcomes(
            request.rollout_id,
            cursor=Cursor(request.instance, request.after),
            limit=request.limit or _DEFAULT_OUTCOMES,
        )
        return inference_pb2.ListOutcomesResponse(
            instance=page.next.instance,
            outcomes=[
                inference_pb2.Outcome(
                    sequence=outcome.sequence,
                    arm=outcome.arm,
                    candidate_bps=outcome.candidate_bps,
                    drafted_tokens=outcome.served.drafted_tokens,
                    accepted_tokens=outcome.served.accepted_tokens,
                    stable_digest=outcome.stable_digest,
                    candidate_digest=outcome.candidate_digest,
                    ending=outcome.ending,
                    time_per_output_token_us=min(
                        outcome.served.time_per_output_token_us, _UINT32_MAX
                    ),
                    time_to_first_token_us=min(outcome.served.time_to_first_token_us, _UINT32_MAX),
                    step_time_us=min(outcome.served.step_time_us, _UINT32_MAX),
                    stable_step_time_us=min(outcome.served.stable_step_time_us, _UINT32_MAX),
                    pair=outcome.pair,
                    requests=outcome.requests,
                    failed_requests=outcome.failed_requests,
                )
                for outcome in page.outcomes
            ],
            next_after=page.next.sequence,
            unlisted_stable=page.unlisted["stable"],
            unlisted_candidate=page.unlisted["candidate"],
        )

    async def GetCounters(  # noqa: N802
        self, request: inference_pb2.GetCountersRequest, context: Context
    ) -> inference_pb2.GetCountersResponse:
        serving = self._gate.serving
        counters = await serving.engine.counters()
        return inference_pb2.GetCountersResponse(
            instance=counters.instance,
            arms=[
                inference_pb2.ArmCounters(
                    arm=arm,
                    requests=counts.requests,
                    failed_requests=counts.failed_requests,
                    verify_steps=counts.verify_steps,
                    drafted_tokens=counts.drafted_tokens,
                    accepted_tokens=counts.accepted_tokens,
                    output_tokens=counts.output_tokens,
                    drafting_time_us=int(counts.drafting_seconds * 1e6),
                )
                for arm, counts in counters.arms.items()
            ],
            trajectories_sent=serving.trajectories.sent if serving.trajectories else 0,
            trajectories_dropped=serving.trajectories.dropped if serving.trajectories else 0,
            running_requests=counters.running,
            waiting_requests=counters.waiting,
            ngram=_ngram(counters.ngram),
        )

    async def GetStatus(  # noqa: N802
        self, request: inference_pb2.GetStatusRequest, context: Context
    ) -> inference_pb2.GetStatusResponse:
        serving = self._gate.serving
        status = await serving.engine.status()
        return inference_pb2.GetStatusResponse(
            instance=status.instance,
            model=serving.model_name,
            target_digest=serving.target_digest,
            tokenizer_digest=serving.tokenizer_digest,
            stable=_draft(status.stable),
            candidate=_draft(status.candidate),
            rollout_id=status.rollout_id,
            candidate_bps=status.candidate_bps,
            speculation_length=status.speculation_length,
            device=status.device,
            max_context_tokens=serving.max_context_tokens,
            retained=[
                inference_pb2.RetainedDraft(draft=_draft(each.draft), share_bps=each.share_bps)
                for each in status.retained
            ],
            problems=[
                inference_pb2.Problem(reason=problem.reason, message=problem.message)
                for problem in lasting_problems(serving)
            ],
        )


def _ngram(counts: DraftCounters | None) -> inference_pb2.NgramCounters | None:
    """None leaves the field absent."""
    if counts is None:
        return None
    return inference_pb2.NgramCounters(
        verify_steps=counts.verify_steps,
        drafted_tokens=counts.drafted_tokens,
        accepted_tokens=counts.accepted_tokens,
    )


def _draft(draft: DraftReference | None) -> inference_pb2.Draft | None:
    """None leaves the field absent."""
    if draft is None:
        return None
    return inference_pb2.Draft(name=draft.name, digest=draft.digest, uri=draft.uri)
