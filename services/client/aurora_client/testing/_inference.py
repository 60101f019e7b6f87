"""The fake's inference service: scripted completions and two stateful draft slots."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import grpc

from aurora.inference.v1 import inference_pb2 as pb
from aurora.inference.v1 import inference_pb2_grpc as pb_grpc
from aurora_client._errors import AuroraClientError, BadRequestError, ConflictError
from aurora_client._inference import ArmCounters, Counters, Draft, InferenceStatus
from aurora_client._request import GenerateRequest
from aurora_client.testing._answer import Answer
from aurora_client.testing._book import Book, fail

STATUS = InferenceStatus(
    instance="fake",
    model="fake",
    target_digest="sha256:" + "a" * 64,
    tokenizer_digest="sha256:" + "b" * 64,
    stable=Draft("ckpt-1", "sha256:" + "1" * 64),
    candidate=None,
    rollout_id="",
    candidate_bps=0,
    speculation_length=6,
    max_context_tokens=4096,
)
COUNTERS = Counters(
    instance="fake",
    arms=(ArmCounters("stable", 10, 0, 100, 400, 300, 400),),
    trajectories_sent=10,
    trajectories_dropped=0,
    running_requests=0,
    waiting_requests=0,
)


class FakeInference(pb_grpc.InferenceServicer):
    """Answers with `answers` in turn, repeating the last."""

    def __init__(self, book: Book, answers: tuple[Answer, ...]) -> None:
        self._book = book
        self._answers = answers
        self.requests: list[GenerateRequest] = []
        self.cancelled = 0
        self.status = STATUS
        self.counters = COUNTERS

    def Generate(  # noqa: N802
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateResponse]:
        self._book.enter("Generate", context)
        try:
            asked = _request_of(request)
        except BadRequestError as error:
            fail(context, error)
        with self._book.changed:
            answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self.requests.append(asked)
            request_id = f"request-{len(self.requests)}"
        ended = threading.Event()
        # False: the call has already ended and the callback would never run.
        if not context.add_callback(lambda: self._count(ended)):
            self._count(ended)
        yield from answer.chunks(request_id)
        if answer.end == "hang":
            self._book.wait(lambda: self._book.is_stopping or not context.is_active(), seconds=None)
            return
        ended.set()
        if isinstance(answer.end, AuroraClientError):
            fail(context, answer.end)
        yield answer.last(request_id)

    def _count(self, ended: threading.Event) -> None:
        """At the end of a call: counts it as cancelled unless its answer was complete."""
        with self._book.changed:
            self.cancelled += not ended.is_set()
            self._book.changed.notify_all()

    def StageDraft(  # noqa: N802
        self, request: pb.StageDraftRequest, context: grpc.ServicerContext
    ) -> pb.StageDraftResponse:
        self._book.enter("StageDraft", context)
        draft = Draft(request.draft.name, request.draft.digest, request.draft.uri)
        if request.slot == pb.SLOT_STABLE:
            self.status = replace(self.status, stable=draft)
        else:
            self.status = replace(self.status, candidate=draft)
        return pb.StageDraftResponse()

    def UnstageDraft(  # noqa: N802
        self, request: pb.UnstageDraftRequest, context: grpc.ServicerContext
    ) -> pb.UnstageDraftResponse:
        self._book.enter("UnstageDraft", context)
        self.status = replace(self.status, candidate=None, candidate_bps=0)
        return pb.UnstageDraftResponse()

    def PromoteDraft(  # noqa: N802
        self, request: pb.PromoteDraftRequest, context: grpc.ServicerContext
    ) -> pb.PromoteDraftResponse:
        self._book.enter("PromoteDraft", context)
        candidate, stable = self.status.candidate, self.status.stable
        if stable is not None and stable.digest == request.digest:
            return pb.PromoteDraftResponse()
        if candidate is None or candidate.digest != request.digest:
            fail(context, ConflictError(f"the candidate is not {request.digest}"))
        self.status = replace(self.status, stable=candidate, candidate=None, candidate_bps=0)
        return pb.PromoteDraftResponse(pause_microseconds=250)

    def SetTraffic(  # noqa: N802
        self, request: pb.SetTrafficRequest, context: grpc.ServicerContext
    ) -> pb.SetTrafficResponse:
        self._book.enter("SetTraffic", context)
        self.status = replace(
            self.status, rollout_id=request.rollout_id, candidate_bps=request.candidate_bps
        )
        return pb.SetTrafficResponse()

    def GetStatus(  # noqa: N802
        self, request: pb.GetStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetStatusResponse:
        self._book.enter("GetStatus", context)
        status = self.status
        return pb.GetStatusResponse(
            instance=status.instance,
            model=status.model,
            target_digest=status.target_digest,
            tokenizer_digest=status.tokenizer_digest,
            stable=_message_of(status.stable),
            candidate=_message_of(status.candidate),
            rollout_id=status.rollout_id,
            candidate_bps=status.candidate_bps,
            speculation_length=status.speculation_length,
            max_context_tokens=status.max_context_tokens,
            device=status.device,
        )

    def GetCounters(  # noqa: N802
        self, request: pb.GetCountersRequest, context: grpc.ServicerContext
    ) -> pb.GetCountersResponse:
        self._book.enter("GetCounters", context)
        return pb.GetCountersResponse(
            instance=self.counters.instance,
            arms=[_arm_message_of(arm) for arm in self.counters.arms],
            trajectories_sent=self.counters.trajectories_sent,
            trajectories_dropped=self.counters.trajectories_dropped,
            running_requests=self.counters.running_requests,
            waiting_requests=self.counters.waiting_requests,
            ngram=pb.NgramCounters(
                verify_steps=self.counters.ngram.verify_steps,
                drafted_tokens=self.counters.ngram.drafted_tokens,
                accepted_tokens=self.counters.ngram.accepted_tokens,
            ),
        )


def _request_of(message: pb.GenerateRequest) -> GenerateRequest:
    is_text = message.WhichOneof("input") == "prompt"
    return GenerateRequest(
        prompt=message.prompt if is_text else tuple(message.prompt_tokens.ids),
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        top_k=message.top_k,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
        ignore_eos=message.ignore_eos,
        tenant=message.tenant,
        domain=message.domain,
        no_train=message.no_train,
        model=message.model,
    )


def _message_of(draft: Draft | None) -> pb.Draft | None:
    return None if draft is None else pb.Draft(name=draft.name, digest=draft.digest, uri=draft.uri)


def _arm_message_of(arm: ArmCounters) -> pb.ArmCounters:
    return pb.ArmCounters(
        arm=arm.arm,
        requests=arm.requests,
        failed_requests=arm.failed_requests,
        verify_steps=arm.verify_steps,
        drafted_tokens=arm.drafted_tokens,
        accepted_tokens=arm.accepted_tokens,
        output_tokens=arm.output_tokens,
    )
