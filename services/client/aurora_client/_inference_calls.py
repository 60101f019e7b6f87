"""The inference service's calls: arguments to requests, responses to values."""

from __future__ import annotations

from typing import Literal, cast

from aurora.inference.v1 import inference_pb2 as pb
from aurora_client._call import Call, nothing
from aurora_client._completion import Chunk, FinishReason, Speculation, Usage
from aurora_client._errors import BadRequestError, BadResponseError
from aurora_client._inference import (
    ArmCounters,
    Counters,
    Draft,
    InferenceStatus,
    NgramCounters,
)
from aurora_client._request import GenerateRequest

Slot = Literal["stable", "candidate"]

_SERVICE = "/aurora.inference.v1.Inference/"
_SLOTS: dict[str, pb.Slot] = {"stable": pb.SLOT_STABLE, "candidate": pb.SLOT_CANDIDATE}
ALL_BPS = 10_000


def generate(request: GenerateRequest) -> Call[pb.GenerateRequest, pb.GenerateResponse, Chunk]:
    message = pb.GenerateRequest(
        model=request.model,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        seed=request.seed,
        stop=request.stop,
        ignore_eos=request.ignore_eos,
        tenant=request.tenant,
        domain=request.domain,
        no_train=request.no_train,
    )
    if isinstance(request.prompt, str):
        message.prompt = request.prompt
    else:
        message.prompt_tokens.ids.extend(request.prompt)
    return Call(_SERVICE + "Generate", message, pb.GenerateResponse, chunk_of)


def status() -> Call[pb.GetStatusRequest, pb.GetStatusResponse, InferenceStatus]:
    return Call(_SERVICE + "GetStatus", pb.GetStatusRequest(), pb.GetStatusResponse, _status_of)


def counters() -> Call[pb.GetCountersRequest, pb.GetCountersResponse, Counters]:
    return Call(
        _SERVICE + "GetCounters", pb.GetCountersRequest(), pb.GetCountersResponse, _counters_of
    )


def stage(slot: Slot, draft: Draft) -> Call[pb.StageDraftRequest, pb.StageDraftResponse, None]:
    if slot not in _SLOTS:
        raise BadRequestError(f"slot must be 'stable' or 'candidate', got {slot!r}")
    message = pb.StageDraftRequest(
        slot=_SLOTS[slot], draft=pb.Draft(name=draft.name, digest=draft.digest, uri=draft.uri)
    )
    return Call(_SERVICE + "StageDraft", message, pb.StageDraftResponse, nothing)


def unstage() -> Call[pb.UnstageDraftRequest, pb.UnstageDraftResponse, None]:
    return Call(
        _SERVICE + "UnstageDraft", pb.UnstageDraftRequest(), pb.UnstageDraftResponse, nothing
    )


def promote(digest: str) -> Call[pb.PromoteDraftRequest, pb.PromoteDraftResponse, float]:
    return Call(
        _SERVICE + "PromoteDraft",
        pb.PromoteDraftRequest(digest=digest),
        pb.PromoteDraftResponse,
        lambda response: response.pause_microseconds / 1e6,
    )


def set_traffic(
    rollout_id: str, candidate_bps: int
) -> Call[pb.SetTrafficRequest, pb.SetTrafficResponse, None]:
    if not 0 <= candidate_bps <= ALL_BPS:
        raise BadRequestError(f"candidate_bps must be from 0 to {ALL_BPS}, got {candidate_bps}")
    message = pb.SetTrafficRequest(rollout_id=rollout_id, candidate_bps=candidate_bps)
    return Call(_SERVICE + "SetTraffic", message, pb.SetTrafficResponse, nothing)


def chunk_of(response: pb.GenerateResponse) -> Chunk:
    """Raises BadResponseError for an unknown finish reason."""
    if response.finish_reason not in ("", "stop", "length"):
        raise BadResponseError(f"unknown finish_reason {response.finish_reason!r}")
    return Chunk(
        request_id=response.request_id,
        text=response.text,
        token_ids=tuple(response.token_ids),
        finish_reason=cast(FinishReason, response.finish_reason) or None,
        usage=_usage_of(response.usage) if response.HasField("usage") else None,
        speculation=(
            _speculation_of(response.speculation) if response.HasField("speculation") else None
        ),
    )


def _usage_of(message: pb.Usage) -> Usage:
    return Usage(message.prompt_tokens, message.completion_tokens)


def _speculation_of(message: pb.Speculation) -> Speculation:
    return Speculation(
        draft=message.draft,
        draft_digest=message.draft_digest,
        arm=message.arm,
        steps=message.steps,
        drafted_tokens=message.drafted_tokens,
        accepted_tokens=message.accepted_tokens,
        ngram_drafted_tokens=message.ngram_drafted_tokens,
        ngram_accepted_tokens=message.ngram_accepted_tokens,
    )


def _draft_of(message: pb.Draft) -> Draft:
    return Draft(message.name, message.digest, message.uri)


def _status_of(response: pb.GetStatusResponse) -> InferenceStatus:
    return InferenceStatus(
        instance=response.instance,
        model=response.model,
        target_digest=response.target_digest,
        tokenizer_digest=response.tokenizer_digest,
        stable=_draft_of(response.stable) if response.HasField("stable") else None,
        candidate=_draft_of(response.candidate) if response.HasField("candidate") else None,
        rollout_id=response.rollout_id,
        candidate_bps=response.candidate_bps,
        speculation_length=response.speculation_length,
        max_context_tokens=response.max_context_tokens,
        device=response.device,
    )


def _counters_of(response: pb.GetCountersResponse) -> Counters:
    return Counters(
        instance=response.instance,
        arms=tuple(_arm_of(arm) for arm in response.arms),
        trajectories_sent=response.trajectories_sent,
        trajectories_dropped=response.trajectories_dropped,
        running_requests=response.running_requests,
        waiting_requests=response.waiting_requests,
        ngram=NgramCounters(
            verify_steps=response.ngram.verify_steps,
            drafted_tokens=response.ngram.drafted_tokens,
            accepted_tokens=response.ngram.accepted_tokens,
        ),
    )


def _arm_of(message: pb.ArmCounters) -> ArmCounters:
    return ArmCounters(
        arm=message.arm,
        requests=message.requests,
        failed_requests=message.failed_requests,
        verify_steps=message.verify_steps,
        drafted_tokens=message.drafted_tokens,
        accepted_tokens=message.accepted_tokens,
        output_tokens=message.output_tokens,
    )
