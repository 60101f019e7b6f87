"""A finished request as the trainer reads it."""

from __future__ import annotations

from aurora.buffer.v1 import buffer_pb2
from aurora_inference.contract import Sampling
from aurora_inference.trajectory.admission import Admission
from aurora_inference.trajectory.completion import Completion, Distributions

_SEED_MASK = (1 << 64) - 1
_UINT32_MAX = (1 << 32) - 1


def trajectory(
    completion: Completion, *, target_digest: str, tokenizer_digest: str, finished_at_ms: int
) -> buffer_pb2.Trajectory:
    """`finished_at_ms` is Unix time; `target` is absent if no distributions were captured."""
    request, report = completion.request, completion.report
    return buffer_pb2.Trajectory(
        request_id=request.id,
        tenant=request.tenant,
        domain=request.domain,
        target_digest=target_digest,
        tokenizer_digest=tokenizer_digest,
        draft_digest=report.draft_digest,
        arm=report.arm,
        sampling=_sampling(request.sampling),
        prompt_tokens=request.prompt_tokens,
        output_tokens=completion.output_tokens,
        target=_target(completion.distributions),
        steps=[
            buffer_pb2.VerifyStep(
                drafted=step.drafted,
                accepted=step.accepted,
                batch_size=step.batch_size,
                microseconds=min(step.microseconds, _UINT32_MAX),
                ngram_drafted=step.ngram_drafted,
                ngram_accepted=step.ngram_accepted,
                by_other=step.by_other,
                draft_digest=step.draft_digest,
            )
            for step in completion.steps
        ],
        finished_at_ms=finished_at_ms,
        admission=_admission(completion.admission),
    )


def estimated_bytes(completion: Completion) -> int:
    """Approximate size of the serialized trajectory, without building it."""
    arrays = sum(array.nbytes for array in completion.distributions or ())
    # A token id takes up to 3 bytes, a step about 12, the digests, names and times under 512.
    tokens = len(completion.request.prompt_tokens) + len(completion.output_tokens)
    steps = sum(12 + len(step.draft_digest) for step in completion.steps)
    return arrays + 3 * tokens + steps + 512


def _admission(admission: Admission | None) -> buffer_pb2.Admission | None:
    if admission is None:
        return None
    return buffer_pb2.Admission(
        engine=admission.engine, at_us=admission.at_us, open_since_us=admission.open_since_us
    )


def _target(distributions: Distributions | None) -> buffer_pb2.TargetDistributions | None:
    """Arrays become little-endian and row-major, as in the proto."""
    if distributions is None:
        return None
    top_ids, top_log_probs, tail_mass = distributions
    return buffer_pb2.TargetDistributions(
        k=top_ids.shape[1],
        token_ids=top_ids.astype("<u4", copy=False).tobytes(),
        log_probs=top_log_probs.astype("<f2", copy=False).tobytes(),
        tail_mass=tail_mass.astype("<f2", copy=False).tobytes(),
    )


def _sampling(sampling: Sampling) -> buffer_pb2.Sampling:
    return buffer_pb2.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        # OpenAI's API allows negative seeds; they count modulo 2^64.
        seed=(sampling.seed or 0) & _SEED_MASK,
    )
