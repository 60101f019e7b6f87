"""Continuous batching with ragged speculative decoding, one `step` at a time.

A step prefills a piece of at most one new prompt and decodes every running row once: the drafters
propose, the target verifies all rows in one pass of fixed width K+1, and each row advances by as
many tokens as it got. All state belongs to one thread; see `worker`.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

from aurora_inference.contract import (
    Arm,
    ArmCounters,
    DraftCounters,
    DraftReference,
    Ending,
    EngineCounters,
    EngineStatus,
    FinishReason,
    Progress,
    Receipt,
    Request,
    Retained,
    Served,
    Slot,
    SpeculationReport,
)
from aurora_inference.native.batch import Batch
from aurora_inference.native.draft_cost import DraftCosts
from aurora_inference.native.portfolio import Portfolio, Trial
from aurora_inference.native.runner import Runner
from aurora_inference.native.runner.drafter import Drafter
from aurora_inference.native.scheduler import Scheduler
from aurora_inference.native.sequence import Sequence
from aurora_inference.native.speculation import LengthController
from aurora_inference.slots.outcome_log import OutcomeLog
from aurora_inference.slots.slots import Assignment, Slots
from aurora_inference.trajectory.admission import Admissions
from aurora_inference.trajectory.completion import Completion, VerifyStep


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How much the engine may hold and how far it may speculate."""

    max_batch: int = 8
    max_context_tokens: int = 1024
    max_speculation_length: int = 6
    adaptive_speculation: bool = True
    prefill_tokens: int = 256

    @property
    def row_tokens(self) -> int:
        """What a row of a cache must hold: a full context, a proposal and the bonus token."""
        return self.max_context_tokens + self.max_speculation_length + 1


class _Advance(NamedTuple):
    """What a step gave one sequence; a finish reason means that it has ended."""

    sequence: Sequence
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None


class Engine:
    """Serves one target with two draft slots, and drafts retained beside them."""

    def __init__(
        self,
        runner: Runner,
        settings: EngineSettings,
        *,
        on_completion: Callable[[Completion], None],
    ) -> None:
        self.max_context_tokens = settings.max_context_tokens
        self.runner = runner
        self.slots = Slots(OutcomeLog(uuid.uuid4().hex))
        self.speculation = LengthController(
            settings.max_speculation_length, adaptive=settings.adaptive_speculation
        )
        self._speculation_length = 0
        self._settings = settings
        self._on_completion = on_completion
        self._scheduler = Scheduler(
            max_batch=settings.max_batch, max_context_tokens=settings.max_context_tokens
        )
        self._batch = Batch()
        # Of the drafts in the slots; a sequence in flight keeps its own.
        self._drafters: dict[str, Drafter] = {}
        self._arms: dict[Arm, ArmCounters] = {"stable": ArmCounters(), "candidate": ArmCounters()}
        self._ngram = DraftCounters()
        self._draft_costs = DraftCosts()
        self._arm_draws = random.Random()
        self.portfolio = Portfolio(random.getrandbits(64))
        self._admissions = Admissions()

    # Draft slots.

    def stage(self, slot: Slot, drafter: Drafter, *, uri: str = "") -> None:
        """Puts a drafter into a slot, or beside them; `uri`: where its checkpoint is."""
        self.slots.stage(slot, DraftReference(drafter.name, drafter.digest, uri))
        self._drafters[drafter.digest] = drafter
        self._forget_unslotted()

    def stage_resident(self, slot: Slot, draft: DraftReference) -> bool:
        """Stages a draft that is in memory already; False if it is not."""
        drafter = self._drafters.get(draft.digest)
        if drafter is not None:
            self.stage(slot, drafter, uri=draft.uri)
        return drafter is not None

    def unstage(self) -> None:
        self.slots.unstage()
        self._forget_unslotted()

    def release(self, digest: str) -> None:
        self.slots.release(digest)
        self._forget_unslotted()

    def promote(self, digest: str) -> Receipt:
        """Makes the candidate the stable draft; raises ConflictError if it is another one."""
        started = time.perf_counter()
        self.slots.promote(digest)
        self._forget_unslotted()
        return Receipt(int((time.perf_counter() - started) * 1e6))

    def status(self) -> EngineStatus:
        return EngineStatus(
            instance=self.slots.outcomes.instance,
            stable=self.slots.stable,
            candidate=self.slots.candidate,
            rollout_id=self.slots.outcomes.rollout_id,
            candidate_bps=self.slots.candidate_bps,
            speculation_length=self._speculation_length,
            retained=tuple(
                Retained(draft, round(self.portfolio.share(draft.digest) * 10_000))
                for draft in self.slots.retained.values()
            ),
            device=self.runner.device,
        )

    def counters(self) -> EngineCounters:
        return EngineCounters(
            self.slots.outcomes.instance,
            deepcopy(self._arms),
            running=len(self._batch),
            waiting=self._scheduler.waiting,
            ngram=deepcopy(self._ngram),
        )

    def _forget_unslotted(self) -> None:
        slotted = self.slots.digests
        self._drafters = {key: each for key, each in self._drafters.items() if key in slotted}
        self.portfolio.keep(slotted)
        self._draft_costs.forget_all_but(slotted)

    # Requests.

    @property
    def idle(self) -> bool:
        return not (len(self._batch) or self._scheduler.waiting)

    def submit(self, request: Request) -> None:
        """Queues a request; raises InvalidInputError if it can never run."""
        self._scheduler.submit(request)

    def cancel(self, request_id: str, *, answered: bool = False) -> list[Progress]:
        """Ends a request at once; a no-op if it has ended. `answered`: its text is complete."""
        if self._scheduler.withdraw(request_id):
            return [ended_early(request_id, "cancelled")]
        for sequence in self._batch.sequences:
            if sequence.request.id == request_id:
                ending: Ending = "completed" if answered else "cancelled"
                return [self._finish(sequence, (), "cancelled", ending)]
        return []

    def fail_all(self) -> list[Progress]:
        """Ends everything in flight after an unexpected error."""
        failed = [
            self._finish(sequence, (), "error", "failed") for sequence in self._batch.sequences
        ]
        return failed + [
            ended_early(request.id, "error") for request in self._scheduler.withdraw_all()
        ]

    def step(self) -> list[Progress]:
        """Prefills a piece of one new prompt and decodes every running row once."""
        progress: list[Progress] = []
        if self._batch.prefilling is None:
            self._admit()
        if self._batch.prefilling is not None:
            progress += self._prefill(self._batch.prefilling)
        if self._batch.running:
            progress += self._decode(self._batch.running)
        return progress

    def _admit(self) -> None:
        request = self._scheduler.next(len(self._batch.running))
        if request is not None:
            assignment, trial = self._drafted(request, self.slots.assign(self._arm_draws.random()))
            self._arms[assignment.arm].requests += 1
            sequence = Sequence(request, assignment, trial)
            sequence.admitted_at = time.perf_counter()
            draft = assignment.draft
            try:
                self.runner.begin(sequence, self._drafters[draft.digest] if draft else None)
            except Exception:
                # The runner does not know it, so `fail_all` cannot end it.
                self._record_outcome(sequence, "failed")
                raise
            if request.record:
                self._admissions.begin(request.id)
            self._batch.prefilling = sequence

    def _drafted(self, request: Request, assignment: Assignment) -> tuple[Assignment, Trial | None]:
        """The draft of a request's arm; of the stable arm, the portfolio's choice.

        The arm is drawn first, so what a rollout compares the candidate with is all that the stable
        arm serves. It does not explore meanwhile.
        """
        if assignment.draft is None:
            return assignment, None
        domain = request.domain or request.tenant
        drafts = {each.digest: each for each in self.slots.portfolio}
        if not drafts or assignment.arm == "candidate":
            return assignment, Trial(domain, assignment.draft.digest)
        trial = self.portfolio.begin(
            domain,
            list(drafts),
            max_tokens=request.max_tokens,
            explore=not assignment.rollout_id,
            # One that needs the target's states cannot begin in the middle of a text.
            bounded=not any(self._drafters[digest].target_layers for digest in drafts),
        )
        return replace(assignment, draft=drafts[trial.digest]), trial

    def _prefill(self, sequence: Sequence) -> list[Progress]:
        prompt_tokens = len(sequence.request.prompt_tokens)
        end = min(sequence.cached + self._settings.prefill_tokens, prompt_tokens)
        token = self.runner.prefill(sequence, row=len(self._batch.running), end=end)
        sequence.cached = end
        if self.speculation.max_length:
            sequence.match(self.speculation.match_rate)
        if token is None:
            return []
        sequence.first_token_at = time.perf_counter()
        self._batch.start_decoding()
        return [self._progress(self._advance(sequence, [token], None))]

    def _decode(self, rows: list[Sequence]) -> list[Progress]:
        started = time.perf_counter()
        lengths = self._lengths(rows)
        # Whose draft fails in this step has still been drafted for by it.
        digests = [row.draft_digest for row in rows]
        step = self.runner.decode(rows, lengths)
        seconds = time.perf_counter() - started
        if step.drafted == lengths:
            drafts = any(digest for digest, length in zip(digests, lengths, strict=True) if length)
            self.speculation.observe_cost(len(rows), max(lengths), seconds, ngram=not drafts)
        self._time(rows, digests, lengths, step.drafting, seconds)
        advances = []
        for row, digest, drafted, accepted, emitted in zip(
            rows, digests, step.drafted, step.accepted, step.emitted, strict=True
        ):
            other = _unlike_first(row, digest)
            verified = VerifyStep(
                drafted,
                accepted,
                len(rows),
                int(seconds * 1e6),
                by_other=bool(other),
                draft_digest=other,
            )
            if digest is None:
                verified = verified.by_ngram()
            else:
                self.speculation.observe_acceptance(digest, drafted, accepted)
            advance = self._advance(row, emitted, verified)
            if digest is not None and row.trial is not None:
                self.portfolio.observe(row.trial, drafted, accepted, len(advance.token_ids))
            advances.append(advance)
        # Only now: ending one row moves another, whose own length must be up to date.
        progress = [self._progress(advance) for advance in advances]
        if self.slots.retained:
            self._change_drafts()
        return progress

    def _change_drafts(self) -> None:
        """Has requests go on with another draft where the portfolio promises more of it."""
        drafts = [each.digest for each in self.slots.portfolio]
        for row in self._batch.running if drafts else ():
            if row.trial is None or row.draft_failed:
                continue
            digest = self.portfolio.following(row.trial, drafts)
            if digest is not None:
                self.portfolio.change(row.trial, digest)
                self.runner.change(row, self._drafters[digest])

    def _time(
        self,
        rows: list[Sequence],
        digests: list[str | None],
        lengths: list[int],
        drafting: Mapping[str, float],
        seconds: float,
    ) -> None:
        """Gives each row and each arm what its own draft took of a step."""
        stable = self.slots.stable.digest if self.slots.stable else ""
        times = self._draft_costs.measured(
            digests, lengths, drafting=drafting, seconds=seconds, stable=stable
        )
        for row, each in zip(rows, times, strict=True):
            row.own_time.add(each)
        # A draft serves one arm, but for requests that began before it was promoted.
        arms = {digest: row.assignment.arm for row, digest in zip(rows, digests, strict=True)}
        for digest, took in drafting.items():
            if digest in arms:
                self._arms[arms[digest]].drafting_seconds += took

    def _lengths(self, rows: list[Sequence]) -> list[int]:
        """How many tokens each row drafts: never more than it can still use besides the bonus."""
        longest = self.speculation.max_length
        length = self.speculation.choose(
            [row.draft_digest for row in rows],
            [
                row.history.expected_tokens(longest)
                for row in rows
                if row.history and row.match_length
            ],
            # Both drafts must be tried as evidence, whatever the controller thinks of either.
            minimum=1 if self.slots.candidate_bps else 0,
        )
        self._speculation_length = length
        return [
            min(length, row.remaining_tokens - 1) if row.draft_digest or row.match_length else 0
            for row in rows
        ]

    def _advance(self, sequence: Sequence, emitted: list[int], step: VerifyStep | None) -> _Advance:
        """Appends a step's tokens, up to a stop token."""
        stops = () if sequence.request.ignore_eos else self.runner.stop_tokens
        stop = next((place for place, token in enumerate(emitted) if token in stops), None)
        kept = emitted if stop is None else emitted[: stop + 1]
        sequence.advance(kept, step)
        if self.speculation.max_length:
            sequence.match(self.speculation.match_rate)
        arm = self._arms[sequence.assignment.arm]
        arm.output_tokens += len(kept)
        if step is not None:
            arm.observe_step(step.drafted, step.accepted)
            self._ngram.observe_step(step.ngram_drafted, step.ngram_accepted)
        if stop is not None:
            return _Advance(sequence, tuple(kept), "stop")
        return _Advance(sequence, tuple(kept), None if sequence.remaining_tokens else "length")

    def _progress(self, advance: _Advance) -> Progress:
        if advance.finish_reason is not None:
            return self._finish(advance.sequence, advance.token_ids, advance.finish_reason)
        return Progress(advance.sequence.request.id, advance.token_ids, None, None)

    def _finish(
        self,
        sequence: Sequence,
        token_ids: tuple[int, ...],
        reason: FinishReason,
        ending: Ending = "completed",
    ) -> Progress:
        for move in self._batch.release(sequence):
            self.runner.move(*move)
        distributions = self.runner.end(sequence)
        self._record_outcome(sequence, ending)
        admission = self._admissions.end(sequence.request.id)
        if reason in ("stop", "length") and distributions is not None:
            completion = Completion(
                request=sequence.request,
                output_tokens=tuple(sequence.output_tokens),
                report=sequence.report(),
                steps=tuple(sequence.steps),
                distributions=distributions,
                admission=admission,
            )
            self._on_completion(completion)
        return Progress(sequence.request.id, token_ids, reason, sequence.report())

    def _record_outcome(self, sequence: Sequence, ending: Ending) -> None:
        if sequence.trial is not None:
            self.portfolio.end(sequence.trial, draft_failed=sequence.draft_failed)
        if ending == "failed":
            self._arms[sequence.assignment.arm].failed_requests += 1
        elif sequence.draft_failed:
            ending = "draft_failed"
        own = sequence.own_time
        waiting = max(sequence.first_token_at - sequence.admitted_at, 0.0)
        tokens = sequence.output_count - 1
        served = Served(
            drafted_tokens=sequence.drafted_tokens,
            accepted_tokens=sequence.accepted_tokens,
            time_to_first_token_us=int(waiting * 1e6),
            # Without the proposals of other drafts for its neighbours in the batch.
            time_per_output_token_us=int(own.alone * 1e6 / tokens) if tokens > 0 else 0,
            step_time_us=_mean_us(own.compared, own.compared_steps),
            stable_step_time_us=_mean_us(own.with_stable, own.compared_steps),
        )
        self.slots.end(sequence.assignment, ending, served)


def _unlike_first(sequence: Sequence, digest: str | None) -> str:
    """The digest, if it is not that of the draft that a request began with."""
    first = sequence.assignment.draft
    return digest if digest and first is not None and digest != first.digest else ""


def _mean_us(seconds: float, count: int) -> int:
    return round(seconds * 1e6 / count) if count else 0


def ended_early(request_id: str, reason: FinishReason) -> Progress:
    """The end of a request that got no further than the queue."""
    report = SpeculationReport("", "", "stable", 0, 0, 0)
    return Progress(request_id, (), reason, report)
