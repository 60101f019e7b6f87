"""The gRPC service aurora.inference.v1."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from aurora.inference.v1 import inference_pb2, inference_pb2_grpc
from aurora_common.errors import InvalidInputError
from aurora_inference.contract import Arm, Cursor, DraftReference, Sampling
from aurora_inference.serving.gate import Gate
from aurora_inference.serving.generation import Piece
from aurora_inference.serving.refusal import RefusedParameterError
from aurora_inference.serving.text_service import Question, TextService, new_request_id

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

# Served on the clients' port; the control verbs have a port of their own.
CLIENT_METHODS = frozenset({"Generate", "GetCounters", "GetStatus"})

_DEFAULT_OUTCOMES = 1000
_UINT32_MAX = (1 << 32) - 1

Context = grpc.aio.ServicerContext[Any, Any]

_SLOTS: dict[int, Arm] = {
    inference_pb2.SLOT_STABLE: "stable",
    inference_pb2.SLOT_CANDIDATE: "candidate",
}


class InferenceServicer(inference_pb2_grpc.InferenceServicer):
    """Every call is UNAVAILABLE until the gate opens."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def Generate(  # noqa: N802 - the proto's name
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        text = self._gate.serving.text
        if request.model:
            text.check_model(request.model)
        question = _question(request, await _prompt_tokens(request, text), text.model.sampling)
        generation = text.start(question, request_id=new_request_id("gen"))

        # Cancels in the engine however the call ends, by its client or by its deadline.
        context.add_done_callback(lambda _: generation.cancel())  # type: ignore[arg-type]  # stubs want a subclass
        try:
            async for piece in generation:
                if piece.token_ids or piece.ending is not None:
                    yield _response(generation.request.id, piece)
        finally:
            generation.cancel()

    async def StageDraft(  # noqa: N802
        self, request: inference_pb2.StageDraftRequest, context: Context
    ) -> inference_pb2.StageDraftResponse:
        slot = _SLOTS.get(request.slot)
        if slot is None:
            raise InvalidInputError("slot is unspecified; allowed are SLOT_STABLE, SLOT_CANDIDATE")
        draft = DraftReference(request.draft.name, request.draft.digest, request.draft.uri)
        await self._gate.serving.engine.stage(slot, draft)
        return inference_pb2.StageDraftResponse()

    async def UnstageDraft(  # noqa: N802
        self, request: inference_pb2.UnstageDraftRequest, context: Context
    ) -> inference_pb2.UnstageDraftResponse:
        await self._gate.serving.engine.unstage()
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
        await self._gate.serving.engine.split(request.rollout_id, request.candidate_bps)
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
                    drafted_tokens=outcome.drafted_tokens,
                    accepted_tokens=outcome.accepted_tokens,
                    failed=outcome.failed,
                    time_per_output_token_us=min(outcome.time_per_output_token_us, _UINT32_MAX),
                )
                for outcome in page.outcomes
            ],
            next_after=page.next.sequence,
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
                )
                for arm, counts in counters.arms.items()
            ],
            trajectories_sent=serving.trajectories.sent if serving.trajectories else 0,
            trajectories_dropped=serving.trajectories.dropped if serving.trajectories else 0,
            running_requests=counters.running,
            waiting_requests=counters.waiting,
        )

    async def GetStatus(  # noqa: N802
        self, request: inference_pb2.GetStatusRequest, context: Context
    ) -> inference_pb2.GetStatusResponse:
        serving = self._gate.serving
        status = await serving.engine.status()
        return inference_pb2.GetStatusResponse(
            instance=status.instance,
            model=serving.text.model.name,
            target_digest=serving.target_digest,
            tokenizer_digest=serving.tokenizer_digest,
            stable=_draft(status.stable),
            candidate=_draft(status.candidate),
            rollout_id=status.rollout_id,
            candidate_bps=status.candidate_bps,
            speculation_length=status.speculation_length,
            max_context_tokens=serving.text.model.max_context_tokens,
            problems=[
                inference_pb2.Problem(reason=problem.reason, message=problem.message)
                for problem in serving.problems()
            ],
        )


async def _prompt_tokens(
    request: inference_pb2.GenerateRequest, text: TextService
) -> tuple[int, ...]:
    match request.WhichOneof("input"):
        case "prompt":
            return await text.encode(request.prompt)
        case "prompt_tokens":
            return tuple(request.prompt_tokens.ids)
    raise RefusedParameterError("prompt or prompt_tokens is needed", param="prompt")


def _question(
    request: inference_pb2.GenerateRequest, prompt_tokens: tuple[int, ...], default: Sampling
) -> Question:
    return Question(
        prompt_tokens=prompt_tokens,
        max_tokens=request.max_tokens,
        sampling=Sampling(
            temperature=request.temperature,
            top_p=request.top_p if request.HasField("top_p") else default.top_p,
            top_k=request.top_k,
            seed=request.seed if request.HasField("seed") else None,
        ),
        stop=tuple(request.stop),
        ignore_eos=request.ignore_eos,
        tenant=request.tenant,
        domain=request.domain,
        no_train=request.no_train,
    )


def _response(request_id: str, piece: Piece) -> inference_pb2.GenerateResponse:
    response = inference_pb2.GenerateResponse(
        request_id=request_id, text=piece.text, token_ids=piece.token_ids
    )
    if piece.ending is not None:
        report = piece.ending.report
        response.finish_reason = piece.ending.finish_reason
        response.usage.prompt_tokens = piece.ending.prompt_tokens
        response.usage.completion_tokens = piece.ending.completion_tokens
        response.speculation.draft = report.draft
        response.speculation.draft_digest = report.draft_digest
        response.speculation.arm = report.arm
        response.speculation.steps = report.steps
        response.speculation.drafted_tokens = report.drafted_tokens
        response.speculation.accepted_tokens = report.accepted_tokens
    return response


def _draft(draft: DraftReference | None) -> inference_pb2.Draft | None:
    """None leaves the field absent."""
    if draft is None:
        return None
    return inference_pb2.Draft(name=draft.name, digest=draft.digest, uri=draft.uri)
