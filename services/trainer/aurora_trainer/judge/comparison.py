"""Two drafts on the same recorded requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from aurora.buffer.v1 import buffer_pb2
from aurora_common.errors import ConflictError
from aurora_model.decoder import Decoder
from aurora_model.device import CPU
from aurora_model.draft import Draft
from aurora_model.target import TargetIdentity
from aurora_trainer.data.record import (
    BareRecordError,
    ForeignRecordError,
    LongRecordError,
    MalformedRecordError,
    RecordFormat,
    as_served,
    greedy_sample_from,
    sample_from,
)
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.judge.acceptance import acceptance
from aurora_trainer.judge.parity import Agreement
from aurora_trainer.judge.renewal import expected_steps
from aurora_trainer.judge.sampling import Sampling, sampling_of
from aurora_trainer.stable import loaded_draft

# Of a request, its target's distributions; as many as an engine records.
_RECORDED_TOKENS = 64
_CACHE_BYTES = 64 << 20
# Of a score: differences far below what could matter, and above what float32 leaves undetermined.
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class JudgedDraft:
    """A checkpoint by the digest of its content, and where it is."""

    digest: str
    uri: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared.

    `greedy_drafts`: the engine drafts the most probable token, always. `speculation_length`: what a
    step would draft for a request in which it drafted nothing; 0: such requests are not judged.
    `any_shape`: what a step costs with either is known to the caller.
    """

    stable: JudgedDraft
    candidate: JudgedDraft
    greedy_drafts: bool = False
    speculation_length: int = 0
    any_shape: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """Verify steps that either draft is expected to need for one request's output tokens.

    `id`: the stream id up to which all were read when it was judged. `shapes_differ`: a step may
    cost another time with one than with the other.
    """

    id: str
    domain: str
    output_tokens: int
    stable_steps: float
    candidate_steps: float
    shapes_differ: bool = False


class Unjudged(StrEnum):
    """Why a request has no score."""

    # Whatever a candidate does to requests that it serves, it cannot choose those it is judged by.
    CANDIDATE_SERVED = "candidate_served"
    # It was admitted before the comparison began.
    EARLY = "early"
    FOREIGN = "foreign"
    MALFORMED = "malformed"
    BARE = "bare"
    LONG = "long"
    NOTHING_DRAFTED = "nothing_drafted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class _Request:
    """A recorded request with its distributions; `drafted`: how many tokens a step drafts."""

    sample: Sample
    sampling: Sampling
    drafted: int


class Comparison:
    """Scores requests one at a time; the same request gets the same score."""

    def __init__(
        self,
        pair: Pair,
        *,
        stable: Draft,
        candidate: Draft,
        record_format: RecordFormat,
        target: Decoder | None = None,
    ) -> None:
        """`target`: in memory, if what it thinks of a request is to be computed, not recorded.

        Raises ConflictError if a step with one may cost another time than with the other, unless
        that is known to the caller, or if they are of two kinds.
        """
        self._shapes_differ = stable.config != candidate.config
        if stable.kind != candidate.kind or (self._shapes_differ and not pair.any_shape):
            raise ConflictError(
                "their shapes differ, so that a step with one costs another time than with the "
                "other: only drafts of one kind and config can be compared"
            )
        self._pair = pair
        self._stable = stable.eval()
        self._candidate = candidate.eval()
        self._record_format = record_format
        self._agreements: tuple[Agreement, ...] = (
            Agreement(pair.stable.digest),
            Agreement(pair.candidate.digest),
        )
        self._counted: set[str] = set()
        self._teacher = None
        if target is not None:
            layers = stable.target_layers(target.config)
            if layers != candidate.target_layers(target.config):
                raise ConflictError("they read different layers of the target: cannot be compared")
            # Each request is scored once: it is enough to pass it once for both.
            self._teacher = Teacher(target, layers, cache_bytes=_CACHE_BYTES)

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """What became in service of tokens that either draft proposed; may be read at any time."""
        return self._agreements

    def score(self, entry: buffer_pb2.Entry) -> Score | Unjudged:
        """What both need for the entry's output, or the part of it that training keeps.

        Counts what was accepted in service, if either of them served it.
        """
        by_candidate = entry.trajectory.draft_digest == self._pair.candidate.digest
        if by_candidate and self._agreements[1].is_enough:
            return Unjudged.CANDIDATE_SERVED
        request = self._read(entry)
        if by_candidate:
            if isinstance(request, _Request):
                self._count(entry, self._acceptance(self._candidate, request), request)
            return Unjudged.CANDIDATE_SERVED
        if isinstance(request, Unjudged):
            return request
        found = [self._acceptance(draft, request) for draft in (self._stable, self._candidate)]
        self._count(entry, found[0], request)
        stable, candidate = (expected_steps(each, request.drafted) for each in found)
        return Score(
            id=entry.id,
            domain=request.sample.domain,
            output_tokens=request.sample.output_count,
            stable_steps=round(stable, _DECIMALS),
            candidate_steps=round(candidate, _DECIMALS),
            shapes_differ=self._shapes_differ,
        )

    def _acceptance(self, draft: Draft, request: _Request) -> NDArray[np.float64]:
        return acceptance(
            draft,
            request.sample,
            request.sampling,
            vocab_size=self._record_format.vocab_size,
            drafted=request.drafted,
            teacher=self._teacher,
            greedy_drafts=self._pair.greedy_drafts,
        )

    def _count(
        self, entry: buffer_pb2.Entry, accepted: NDArray[np.float64], request: _Request
    ) -> None:
        """Adds to the agreement of the draft that served it, unless it cannot tell of that."""
        record, sampling = entry.trajectory, request.sampling
        is_seeded = record.sampling.seed != 0 and not sampling.is_greedy
        is_whole = len(record.output_tokens) == request.sample.output_count
        # A comparison that begins anew reads the same requests again.
        if is_seeded or not is_whole or entry.id in self._counted:
            return
        found = tuple(
            each
            if each.digest != record.draft_digest or each.is_enough
            else each.add(accepted, record.steps)
            for each in self._agreements
        )
        if found != self._agreements:
            self._counted.add(entry.id)
            self._agreements = found

    def _read(self, entry: buffer_pb2.Entry) -> _Request | Unjudged:
        record, accepted = entry.trajectory, self._record_format
        try:
            sampling = sampling_of(record)
            # The served token is the one that the target prefers.
            is_known = sampling.is_greedy and not (accepted.recomputed or record.HasField("target"))
            read = greedy_sample_from if is_known else sample_from
            sample = read(entry.id, record, accepted)
        except ForeignRecordError:
            return Unjudged.FOREIGN
        except BareRecordError:
            return Unjudged.BARE
        except LongRecordError:
            return Unjudged.LONG
        except MalformedRecordError:
            return Unjudged.MALFORMED
        # At the end of a request the engine drafts fewer.
        drafted = max((step.drafted for step in record.steps), default=0)
        # With a stale draft the engine may not draft at all, and a better one would go unseen.
        drafted = drafted or self._pair.speculation_length
        if drafted == 0:
            return Unjudged.NOTHING_DRAFTED
        return _Request(self._with_distributions(sample, sampling), sampling, drafted)

    def _with_distributions(self, sample: Sample, sampling: Sampling) -> Sample:
        """Recomputes them if they were not recorded and are not known by what was served."""
        if self._teacher is None:
            return sample
        if sampling.is_greedy:
            return as_served(sample)
        return self._teacher.recorded(sample, _RECORDED_TOKENS)


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Loads drafts for comparison; `claims`: where those of pvc:// are mounted.

    `held_target`: in memory, for drafts that need it and for requests recorded as token ids alone.
    """

    target: TargetIdentity
    record_format: RecordFormat
    claims: Path | None = None
    held_target: Decoder | None = None
    device: torch.device = CPU
    # Two comparisons share the draft that they have in common.
    _in_memory: WeakValueDictionary[JudgedDraft, Draft] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )

    def load(self, pair: Pair) -> Comparison:
        """Verifies and loads both.

        Raises ConflictError if these two can never be compared, and other AuroraErrors if one
        cannot be loaded, which may change.
        """
        return Comparison(
            pair,
            stable=self._loaded(pair.stable),
            candidate=self._loaded(pair.candidate),
            record_format=self.record_format,
            target=self.held_target,
        )

    def _loaded(self, judged: JudgedDraft) -> Draft:
        shared = self._in_memory.get(judged)
        if shared is not None:
            return shared
        draft = loaded_draft(
            judged.uri,
            judged.digest,
            target=self.target,
            claims=self.claims,
            held_target=self.held_target,
            device=self.device,
        )
        self._in_memory[judged] = draft
        return draft
