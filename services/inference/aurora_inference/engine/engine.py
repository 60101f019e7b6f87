"""Continuous batching with ragged speculative decoding, one `step` at a time.

A step prefills a piece of at most one new prompt and decodes every running row once: the drafts
propose, the target verifies all rows in one pass of fixed width K+1, and each row advances by as
many tokens as it got. All state belongs to one thread; see `worker`.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from aurora_inference.engine.cache import CachedAttention, KeyValueCache
from aurora_inference.engine.capture import as_arrays, captured_rows
from aurora_inference.engine.counters import ArmCounters, EngineCounters
from aurora_inference.engine.draft_model import DRAFT_ROWS, DraftRoom
from aurora_inference.engine.request import (
    Arm,
    Completion,
    FinishReason,
    Progress,
    Request,
    SpeculationReport,
    VerifyStep,
)
from aurora_inference.engine.sampling import SamplingRows, sampling_rows
from aurora_inference.engine.scheduler import Scheduler
from aurora_inference.engine.sequence import Sequence
from aurora_inference.engine.speculation import LengthController
from aurora_inference.engine.target import Target
from aurora_inference.engine.traffic import Outcome, Traffic
from aurora_kernels.linear import Calibration
from aurora_kernels.rejection import Verdict, draw, verify, verify_greedy


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How much the engine may hold and how far it may speculate."""

    max_batch: int = 8
    max_context_tokens: int = 1024
    max_speculation_length: int = 6
    adaptive_speculation: bool = True
    prefill_tokens: int = 256


class Advance(NamedTuple):
    """What a step gave one sequence; a finish reason means that it is over."""

    sequence: Sequence
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None


class Engine:
    """Serves one target with two draft slots."""

    def __init__(
        self,
        target: Target,
        settings: EngineSettings,
        *,
        on_completion: Callable[[Completion], None],
    ) -> None:
        self.instance = uuid.uuid4().hex
        self.target_identity = target.identity
        self.max_context_tokens = settings.max_context_tokens
        self.traffic = Traffic()
        self.speculation = LengthController(
            settings.max_speculation_length, adaptive=settings.adaptive_speculation
        )
        self.speculation_length = 0
        self._settings = settings
        self._target = target
        self._on_completion = on_completion
        self._scheduler = Scheduler(
            max_batch=settings.max_batch,
            max_context_tokens=settings.max_context_tokens,
        )
        self._cache = KeyValueCache(
            target.decoder.config,
            rows=settings.max_batch,
            capacity=settings.max_context_tokens + settings.max_speculation_length + 1,
            dtype=target.dtype,
            device=target.device,
        )
        self.draft_room = DraftRoom(
            rows=settings.max_batch,
            capacity=self._cache.capacity,
            calibration=Calibration(DRAFT_ROWS, lossy=True),
            device=target.device,
        )
        # Row i of the cache is `_running[i]`; the row behind them is `_prefilling`'s.
        self._running: list[Sequence] = []
        self._prefilling: Sequence | None = None
        self._arms: dict[Arm, ArmCounters] = {"stable": ArmCounters(), "candidate": ArmCounters()}
        self._arm_draws = random.Random()

    # What runs.

    @property
    def idle(self) -> bool:
        return not (self._running or self._prefilling or self._scheduler.waiting)

    def submit(self, request: Request) -> None:
        """Queues a request; raises InvalidInputError where it can never run."""
        self._scheduler.submit(request)

    def cancel(self, request_id: str) -> list[Progress]:
        """Ends a request at once; nothing where it is not there (any more)."""
        if self._scheduler.withdraw(request_id):
            return [_never_ran(request_id, "cancelled")]
        for sequence in self._sequences():
            if sequence.request.id == request_id:
                return [self._finish(sequence, (), "cancelled")]
        return []

    def fail_all(self) -> list[Progress]:
        """Ends everything in flight after an unexpected error."""
        failed = [self._finish(sequence, (), "error") for sequence in self._sequences()]
        return failed + [
            _never_ran(request.id, "error") for request in self._scheduler.withdraw_all()
        ]

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Prefills a piece of one new prompt and decodes every running row once."""
        progress: list[Progress] = []
        if self._prefilling is None:
            self._admit()
        if self._prefilling is not None:
            progress += self._prefill(self._prefilling)
        if self._running:
            progress += self._decode()
        return progress

    def counters(self) -> EngineCounters:
        running = len(self._running) + (self._prefilling is not None)
        return EngineCounters(deepcopy(self._arms), running, self._scheduler.waiting)

    def _sequences(self) -> list[Sequence]:
        return [*self._running, *([self._prefilling] if self._prefilling else [])]

    def promote(self, digest: str) -> int:
        """Makes the candidate the stable; returns how long that held up decoding, in µs.

        Raises ConflictError where the candidate is another draft.
        """
        started = time.perf_counter()
        self.traffic.promote(digest)
        return int((time.perf_counter() - started) * 1e6)

    # Admission and prefill.

    def _admit(self) -> None:
        request = self._scheduler.next(len(self._running))
        if request is not None:
            assignment = self.traffic.assign(self._arm_draws.random())
            self._arms[assignment.arm].requests += 1
            self._prefilling = Sequence(request, assignment)

    def _prefill(self, sequence: Sequence) -> list[Progress]:
        prompt = sequence.request.prompt_tokens
        end = min(sequence.cached + self._settings.prefill_tokens, len(prompt))
        attend = CachedAttention(
            self._cache,
            first_row=len(self._running),
            starts=[sequence.cached],
            count=end - sequence.cached,
        )
        logits = self._target.prefill(prompt[sequence.cached : end], attend)
        sequence.cached = end
        if end < len(prompt):
            return []
        token = self._first_token(sequence, logits)
        sequence.first_token_at = time.perf_counter()
        self._prefilling = None
        self._running.append(sequence)
        if sequence.draft is not None:
            sequence.draft.add(sequence)
        return [self._progress(self._advance(sequence, [token], drafted=0, accepted=0))]

    def _first_token(self, sequence: Sequence, logits: Tensor) -> int:
        """Draws from the prompt's last position, logits [1, V] float32."""
        if sequence.request.record:
            sequence.captured.append(captured_rows(logits))
        sampling = sampling_rows((sequence.request.sampling,), self._target.device)
        if sampling.greedy:
            return int(logits.argmax())
        uniform = sequence.uniforms(1).to(logits.device)
        return int(draw(sampling.probs(logits.unsqueeze(0))[0], uniform))

    # Decoding.

    def _decode(self) -> list[Progress]:
        started = time.perf_counter()
        rows = self._running
        lengths = self._lengths(rows)
        width = max(lengths)
        sampling = sampling_rows(tuple(row.request.sampling for row in rows), self._target.device)
        uniforms = None if sampling.greedy else self._uniforms(rows, width)
        drafted, draft_probs = self._proposals(rows, lengths, uniforms)
        logits = self._target_logits(rows, drafted)  # [n, K+1, V]
        verdict = _verdict(logits, drafted, draft_probs, lengths, uniforms, sampling)
        accepted, next_tokens = verdict.accepted.tolist(), verdict.next_token.tolist()
        self._capture(rows, logits, accepted)
        emitted = [
            [*row_drafted[:count], token]
            for row_drafted, count, token in zip(
                drafted.tolist(), accepted, next_tokens, strict=True
            )
        ]
        seconds = time.perf_counter() - started
        self.speculation.cost.observe(len(rows), width, seconds)
        batch = len(rows)
        advances = []
        for row, length, count, tokens in zip(rows, lengths, accepted, emitted, strict=True):
            row.steps.append(VerifyStep(length, count, batch, int(seconds * 1e6)))
            advances.append(self._advance(row, tokens, drafted=length, accepted=count))
        # Only now: ending one row moves another, which must know its own length by then.
        return [self._progress(advance) for advance in advances]

    def _lengths(self, rows: list[Sequence]) -> list[int]:
        """How many tokens each row drafts: never more than it can still use besides the bonus."""
        length = self.speculation.choose(
            [row.draft.digest if row.draft else None for row in rows],
            # Both drafts must be tried for the judge, whatever this engine thinks of either.
            minimum=1 if self.traffic.candidate_bps else 0,
        )
        self.speculation_length = length
        return [min(length, row.remaining_tokens - 1) if row.draft else 0 for row in rows]

    def _uniforms(self, rows: list[Sequence], width: int) -> Tensor:
        """[n, 2K+1]: K for the proposal, K for acceptance, one for the next token."""
        drawn = torch.stack([row.uniforms(2 * width + 1) for row in rows])
        return drawn.to(self._target.device)

    def _proposals(
        self, rows: list[Sequence], lengths: list[int], uniforms: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Drafted tokens [n, K] and, unless all rows are greedy, their distributions [n, K, V]."""
        width, device = max(lengths), self._target.device
        tokens = torch.zeros(len(rows), width, dtype=torch.int64, device=device)
        probs = None
        if uniforms is not None:
            vocabulary = self._target.decoder.config.vocab_size
            probs = torch.zeros(len(rows), width, vocabulary, device=device)
        index = {id(row): position for position, row in enumerate(rows)}
        for draft in {id(row.draft): row.draft for row in rows if row.draft}.values():
            places = [index[id(sequence)] for sequence in draft.sequences]
            count = max(lengths[place] for place in places)
            if count == 0:
                continue
            proposal = draft.propose(count, None if uniforms is None else uniforms[places])
            tokens[places, :count] = proposal.tokens
            if probs is not None and proposal.probs is not None:
                probs[places, :count] = proposal.probs
        return tokens, probs

    def _target_logits(self, rows: list[Sequence], drafted: Tensor) -> Tensor:
        """The target's logits [n, K+1, V] float32 after each row's newest token and its drafts."""
        newest = torch.tensor([[row.tokens[-1]] for row in rows], device=self._target.device)
        attend = CachedAttention(
            self._cache,
            first_row=0,
            starts=[row.cached for row in rows],
            count=drafted.shape[1] + 1,
        )
        return self._target.logits(torch.cat([newest, drafted], dim=1), attend)

    def _capture(self, rows: list[Sequence], logits: Tensor, accepted: list[int]) -> None:
        """Keeps the distributions up to and including each row's first rejection."""
        width = logits.shape[1]
        recorded = [
            index * width + position
            for index, row in enumerate(rows)
            if row.request.record
            for position in range(accepted[index] + 1)
        ]
        if not recorded:
            return
        flat = logits.flatten(0, 1)  # [n * (K+1), V]
        if len(recorded) < len(flat):
            flat = flat.index_select(0, torch.tensor(recorded, device=flat.device))
        captured = captured_rows(flat)
        start = 0
        for index, row in enumerate(rows):
            if row.request.record:
                end = start + accepted[index] + 1
                row.captured.append(captured.part(start, end))
                start = end

    def _advance(
        self, sequence: Sequence, emitted: list[int], *, drafted: int, accepted: int
    ) -> Advance:
        """Appends a step's tokens, up to a stop token.

        What the caches hold beyond the accepted tokens is taken back by not counting it.
        """
        held = len(sequence.tokens)
        stops = () if sequence.request.ignore_eos else self._target.stop_tokens
        stop = next((place for place, token in enumerate(emitted) if token in stops), None)
        kept = emitted if stop is None else emitted[: stop + 1]
        sequence.tokens += kept
        sequence.cached = len(sequence.tokens) - 1
        sequence.draft_cached = min(sequence.draft_cached, held + accepted)
        sequence.drafted_tokens += drafted
        sequence.accepted_tokens += accepted
        self._arms[sequence.assignment.arm].observe_step(drafted, accepted, len(kept))
        if sequence.draft is not None:
            self.speculation.observe_acceptance(sequence.draft.digest, drafted, accepted)
        if stop is not None:
            return Advance(sequence, tuple(kept), "stop")
        return Advance(sequence, tuple(kept), None if sequence.remaining_tokens else "length")

    def _progress(self, advance: Advance) -> Progress:
        if advance.finish_reason is not None:
            return self._finish(advance.sequence, advance.token_ids, advance.finish_reason)
        return Progress(advance.sequence.request.id, advance.token_ids, None, None)

    def _finish(
        self, sequence: Sequence, token_ids: tuple[int, ...], reason: FinishReason
    ) -> Progress:
        self._release(sequence)
        self._record_outcome(sequence, failed=reason == "error")
        if reason in ("stop", "length") and sequence.request.record:
            top_ids, top_log_probs, tail_mass = as_arrays(sequence.captured, sequence.output_count)
            completion = Completion(
                request=sequence.request,
                output_tokens=tuple(sequence.output_tokens),
                report=sequence.report(),
                steps=tuple(sequence.steps),
                top_ids=top_ids,
                top_log_probs=top_log_probs,
                tail_mass=tail_mass,
            )
            self._on_completion(completion)
        return Progress(sequence.request.id, token_ids, reason, sequence.report())

    def _record_outcome(self, sequence: Sequence, *, failed: bool) -> None:
        assignment = sequence.assignment
        if failed:
            self._arms[assignment.arm].failed_requests += 1
        decoding = time.perf_counter() - sequence.first_token_at
        self.traffic.record(
            assignment.rollout_id,
            Outcome(
                arm=assignment.arm,
                candidate_bps=assignment.candidate_bps,
                drafted_tokens=sequence.drafted_tokens,
                accepted_tokens=sequence.accepted_tokens,
                failed=failed,
                time_per_output_token_us=int(
                    decoding * 1e6 / (sequence.output_count - 1) if sequence.output_count > 1 else 0
                ),
            ),
        )

    def _release(self, sequence: Sequence) -> None:
        """Frees a sequence's rows; the last row takes its place, so rows stay dense."""
        if sequence is self._prefilling:
            self._prefilling = None
            return
        row = self._running.index(sequence)
        last = self._running.pop()
        if last is not sequence:
            self._cache.move(len(self._running), row, last.cached)
            self._running[row] = last
        if self._prefilling is not None:
            behind = len(self._running)
            self._cache.move(behind + 1, behind, self._prefilling.cached)
        if sequence.draft is not None:
            sequence.draft.remove(sequence)


def _verdict(
    logits: Tensor,
    drafted: Tensor,
    draft_probs: Tensor | None,
    lengths: list[int],
    uniforms: Tensor | None,
    sampling: SamplingRows,
) -> Verdict:
    """Applies the accept/reject rule to a step; greedy throughout where there are no uniforms."""
    counted = torch.tensor(lengths, device=logits.device)
    if uniforms is None or draft_probs is None:
        return verify_greedy(logits.argmax(dim=-1), drafted, counted)
    deciding = uniforms[:, drafted.shape[1] :]
    return verify(sampling.probs(logits), draft_probs, drafted, counted, deciding)


def _never_ran(request_id: str, reason: FinishReason) -> Progress:
    report = SpeculationReport("", "", "stable", 0, 0, 0)
    return Progress(request_id, (), reason, report)
