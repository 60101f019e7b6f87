"""Validates trajectories from the wire and turns them into samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from aurora.buffer.v1 import buffer_pb2
from aurora_common.errors import InvalidInputError
from aurora_trainer.data.sample import Sample

# float16 keeps three digits of a log-probability, so a row's mass is only this close to 1.
_MASS_TOLERANCE = 0.02


class RecordError(InvalidInputError):
    """A trajectory that is not trained on, for a `reason` that metrics name."""

    reason: ClassVar[str]


class ForeignRecordError(RecordError):
    """A valid trajectory, but of another target or tokenizer."""

    reason = "Foreign"


class MalformedRecordError(RecordError):
    """A trajectory whose fields contradict each other."""

    reason = "Malformed"


class LongRecordError(RecordError):
    """A trajectory whose prompt alone is longer than what is recomputed."""

    reason = "Long"


class BareRecordError(RecordError):
    """A trajectory of token ids alone: the target's distributions were not recorded."""

    reason = "Bare"


class RepeatedRecordError(RecordError):
    """A trajectory whose prompt many others have."""

    reason = "Repeated"


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """The trajectories that this trainer can learn from; both digests name the target."""

    target_digest: str
    tokenizer_digest: str
    vocab_size: int
    max_tokens: int
    former_target_digest: str = ""
    # Whether token ids alone will do, because the trainer computes the distributions itself.
    recomputed: bool = False


def sample_from(stream_id: str, record: buffer_pb2.Trajectory, accepted: RecordFormat) -> Sample:
    """The record as a Sample, cut to its last `max_tokens`.

    If `recomputed`, without distributions and cut to its first `max_tokens`: what the target thinks
    depends on all that comes before. Raises BareRecordError, ForeignRecordError, LongRecordError or
    MalformedRecordError; their messages never contain a token.
    """
    prompt, output = _checked_tokens(record, accepted)
    tokens = np.concatenate([prompt, output]).astype(np.int32)
    if accepted.recomputed:
        tokens = tokens[: accepted.max_tokens]
        kept = len(tokens) - len(prompt)
        if kept < 1:
            raise LongRecordError(
                f"its prompt has {len(prompt)} tokens: what the target thinks of at most "
                f"{accepted.max_tokens} is recomputed"
            )
        top_ids, log_probs, tail_mass = _no_distributions(kept)
    else:
        top_ids, log_probs, tail_mass = _recorded_distributions(record, accepted.vocab_size)
        tokens = tokens[-accepted.max_tokens :]
        # An output token that comes first after the cut has no context to be predicted from.
        kept = min(len(output), len(tokens) - 1)
    return Sample(
        stream_id=stream_id,
        request_id=record.request_id,
        domain=record.domain,
        tokens=tokens,
        top_ids=top_ids[-kept:].astype(np.int32),
        log_probs=log_probs[-kept:].copy(),
        tail_mass=tail_mass[-kept:].copy(),
        is_greedy=record.sampling.temperature == 0,
    )


def served_acceptance(record: buffer_pb2.Trajectory) -> float | None:
    """Accepted by drafted tokens of a request that the stable draft served; None if unknown."""
    drafted = sum(step.drafted for step in record.steps)
    if drafted == 0 or record.arm == "candidate":
        return None
    return min(1.0, sum(step.accepted for step in record.steps) / drafted)


def greedy_sample_from(
    stream_id: str, record: buffer_pb2.Trajectory, accepted: RecordFormat
) -> Sample:
    """A greedy request whose distributions were not recorded: all mass is on the served tokens.

    For judging, not for training. Raises as `sample_from` does, BareRecordError aside.
    """
    _, output = _checked_tokens(record, accepted)
    certain = buffer_pb2.TargetDistributions(
        k=1,
        token_ids=output.astype("<u4").tobytes(),
        log_probs=bytes(2 * len(output)),
        tail_mass=bytes(2 * len(output)),
    )
    known = buffer_pb2.Trajectory()
    known.CopyFrom(record)
    known.target.CopyFrom(certain)
    return sample_from(stream_id, known, accepted)


def as_served(sample: Sample) -> Sample:
    """A greedy request's sample with all mass on the served tokens, which the target prefers."""
    count = sample.output_count
    return replace(
        sample,
        top_ids=sample.tokens[-count:, None].copy(),
        log_probs=np.zeros((count, 1), np.float16),
        tail_mass=np.zeros(count, np.float16),
    )


def within_vocabulary(sample: Sample, size: int) -> Sample:
    """The sample for a draft that has only the token ids below `size`.

    The target's probability of other ids moves to the tail, of which the draft's share is 0; in the
    context, the draft's last id stands for them. Raises MalformedRecordError if a row has no entry
    below `size`.
    """
    known = sample.top_ids < size  # [T, k]
    if known.all() and sample.tokens.max() < size:
        return sample
    entries = int(known.sum(axis=1).min())
    if entries == 0:
        raise MalformedRecordError(f"a row has no top-k token below {size}, the draft's vocabulary")
    # Those that stay first, still the most probable ones first.
    order = np.argsort(~known, axis=1, kind="stable")
    top_ids = np.take_along_axis(sample.top_ids, order, axis=1)
    log_probs = np.take_along_axis(sample.log_probs, order, axis=1)
    moved = np.exp(log_probs[:, entries:].astype(np.float32)).sum(axis=1)
    return replace(
        sample,
        tokens=np.minimum(sample.tokens, size - 1),
        top_ids=top_ids[:, :entries].copy(),
        log_probs=log_probs[:, :entries].copy(),
        tail_mass=(sample.tail_mass + moved).astype(np.float16),
    )


def _checked_tokens(
    record: buffer_pb2.Trajectory, accepted: RecordFormat
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The token ids of prompt and output."""
    targets = (accepted.target_digest, accepted.former_target_digest or accepted.target_digest)
    for name, found, ours in (
        ("target", record.target_digest, targets),
        ("tokenizer", record.tokenizer_digest, (accepted.tokenizer_digest,)),
    ):
        if found not in ours:
            raise ForeignRecordError(f"its {name} is {found or 'not named'}, ours is {ours[0]}")
    prompt = np.fromiter(record.prompt_tokens, np.uint32, len(record.prompt_tokens))
    output = np.fromiter(record.output_tokens, np.uint32, len(record.output_tokens))
    if len(prompt) == 0 or len(output) == 0:
        raise MalformedRecordError(f"{len(prompt)} prompt and {len(output)} output tokens")
    if max(prompt.max(), output.max()) >= accepted.vocab_size:
        raise MalformedRecordError(f"a token is not below {accepted.vocab_size}")
    return prompt, output


def _no_distributions(
    rows: int,
) -> tuple[NDArray[np.uint32], NDArray[np.float16], NDArray[np.float16]]:
    """No entries, and all of the mass in the tail."""
    return (
        np.zeros((rows, 0), np.uint32),
        np.zeros((rows, 0), np.float16),
        np.ones(rows, np.float16),
    )


def _recorded_distributions(
    record: buffer_pb2.Trajectory, vocab_size: int
) -> tuple[NDArray[np.uint32], NDArray[np.float16], NDArray[np.float16]]:
    if not record.HasField("target"):
        raise BareRecordError("it has token ids alone, without the target's distributions")
    found = _distributions(record.target, len(record.output_tokens))
    top_ids, log_probs, tail_mass = found
    if top_ids.max() >= vocab_size:
        raise MalformedRecordError(f"a top-k token is not below {vocab_size}")
    if (np.diff(np.sort(top_ids, axis=1), axis=1) == 0).any():
        raise MalformedRecordError("a row of top-k tokens has one twice")
    _check_mass(log_probs, tail_mass)
    return found


def _distributions(
    target: buffer_pb2.TargetDistributions, rows: int
) -> tuple[NDArray[np.uint32], NDArray[np.float16], NDArray[np.float16]]:
    entries = target.k
    expected = (rows * entries * 4, rows * entries * 2, rows * 2)
    found = (len(target.token_ids), len(target.log_probs), len(target.tail_mass))
    if entries == 0 or found != expected:
        raise MalformedRecordError(
            f"for {rows} output tokens and k={entries} the target's arrays have {found} bytes, "
            f"not {expected}"
        )
    return (
        np.frombuffer(target.token_ids, "<u4").reshape(rows, entries),
        np.frombuffer(target.log_probs, "<f2").reshape(rows, entries),
        np.frombuffer(target.tail_mass, "<f2"),
    )


def _check_mass(log_probs: NDArray[np.float16], tail_mass: NDArray[np.float16]) -> None:
    # NaN fails every comparison, so each states what must hold.
    if not ((log_probs <= _MASS_TOLERANCE).all() and (tail_mass >= 0).all()):
        raise MalformedRecordError("a log-probability is above 0 or a tail's mass below")
    mass = np.exp(log_probs.astype(np.float32)).sum(axis=1) + tail_mass
    if not (np.abs(mass - 1) <= _MASS_TOLERANCE).all():
        raise MalformedRecordError("a row of target probabilities does not sum to 1")
