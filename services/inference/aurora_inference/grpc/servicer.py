"""The gRPC service aurora.inference.v1 of an engine that generates behind our own fronts."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aurora.inference.v1 import inference_pb2
from aurora_inference.contract import Sampling
from aurora_inference.grpc.control_servicer import Context, ControlServicer
from aurora_inference.serving.gate import Serving
from aurora_inference.serving.generation import Piece
from aurora_inference.serving.refusal import RefusedParameterError
from aurora_inference.serving.text_service import Question, TextService, new_request_id

# Served on the clients' port; the control verbs have a port of their own.
CLIENT_METHODS = frozenset({"Generate", "GetCounters", "GetStatus"})


class InferenceServicer(ControlServicer[Serving]):
    """Every call is UNAVAILABLE until the gate opens."""

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
        response.speculation.ngram_drafted_tokens = report.ngram_drafted_tokens
        response.speculation.ngram_accepted_tokens = report.ngram_accepted_tokens
    return response
