"""Which draft served which verify step: counters and outcomes from what the engine reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

from aurora_inference.contract import Arm, ArmCounters, Served, SpeculationReport
from aurora_inference.gateway.answer import Report
from aurora_inference.gateway.pair import Block, Pairs
from aurora_inference.slots.outcome_log import OutcomeLog
from aurora_inference.trajectory.admission import Admissions

OnEnd = Callable[[SpeculationReport], None]


@dataclass(frozen=True, slots=True)
class Serving:
    """The draft that decodes; `digest` is empty for the one that the engine started with."""

    arm: Arm
    name: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The verify steps of a request from `since_step` on, which `serving` drafted."""

    serving: Serving
    since_step: int


@dataclass(slots=True)
class InFlight:
    """A request between its arrival and its end."""

    key: str
    stretches: list[_Stretch]
    block: Block | None
    begun_at: float
    first_at: float | None = None
    last_at: float = 0.0

    def arrived(self, now: float) -> None:
        """Part of the answer's body has come."""
        if self.first_at is None:
            self.first_at = now
        self.last_at = now


@dataclass(slots=True)
class Ledger:
    """All of it on the event loop's thread; times are seconds of `clock`."""

    outcomes: OutcomeLog
    clock: Callable[[], float] = time.monotonic
    serving: Serving = Serving("stable")
    block: Block | None = None
    arms: dict[Arm, ArmCounters] = field(
        default_factory=lambda: {"stable": ArmCounters(), "candidate": ArmCounters()}
    )
    admissions: Admissions = field(default_factory=Admissions)
    begun_requests: int = 0
    unreported_requests: int = 0
    _pairs: Pairs = field(default_factory=Pairs)
    _in_flight: dict[str, InFlight] = field(default_factory=dict)
    # Ended while a switch is under way.
    _deferred: list[tuple[InFlight, Report, OnEnd]] | None = None
    _switching_since: float = 0.0

    @property
    def running(self) -> int:
        return len(self._in_flight)

    def counters(self) -> dict[Arm, ArmCounters]:
        return deepcopy(self.arms)

    def begin(self, key: str, *, is_recorded: bool = False) -> InFlight:
        """A request is about to be sent to the engine; `is_recorded`: its answer may be kept."""
        if is_recorded:
            self.admissions.begin(key)
        request = InFlight(key, [_Stretch(self.serving, 0)], self.block, self.clock())
        self._in_flight[key] = request
        self.begun_requests += 1
        if self.block is not None:
            self._pairs.begin(self.block)
        return request

    def switching(self) -> None:
        """A switch is under way: until `switched` nobody knows which steps come after it."""
        self._deferred = []
        self._switching_since = self.clock()

    def switched(
        self, serving: Serving | None, steps: Mapping[str, int], block: Block | None
    ) -> None:
        """The engine now drafts with another draft; None: with the same, for the switch failed.

        `steps`: how many verify steps of each request that it has begun the former drafts served.
        """
        deferred, self._deferred = self._deferred or [], None
        if serving is not None:
            self.serving, self.block = serving, block
            for request in self._in_flight.values():
                self._switch(request, _Stretch(serving, steps.get(request.key, 0)), block)
            for request, _, _ in deferred:
                if done := steps.get(request.key):
                    request.stretches.append(_Stretch(serving, done))
        for request, report, on_end in deferred:
            self._end(request, report, on_end)

    def _switch(self, request: InFlight, stretch: _Stretch, block: Block | None) -> None:
        if stretch.since_step:
            request.stretches.append(stretch)
        elif request.first_at is None or request.first_at >= self._switching_since:
            # It had not begun: the block before has nothing of it.
            request.stretches = [stretch]
            if request.block is not None:
                self._pairs.withdraw(request.block)
            if block is not None:
                self._pairs.begin(block)
            request.block = block

    def withdraw(self, request: InFlight) -> None:
        """The engine has refused a request: it never ran."""
        self._in_flight.pop(request.key, None)
        self.admissions.end(request.key)
        if request.block is not None:
            self._pairs.withdraw(request.block)

    def end(self, request: InFlight, report: Report, on_end: OnEnd) -> None:
        """A request has ended, with whatever the engine reported of it.

        `on_end` gets who served it, as soon as that is known.
        """
        self._in_flight.pop(request.key, None)
        if self._deferred is None:
            self._end(request, report, on_end)
        else:
            self._deferred.append((request, report, on_end))

    def _end(self, request: InFlight, report: Report, on_end: OnEnd) -> None:
        first = request.stretches[0].serving
        counters = self.arms[first.arm]
        failed = report.finish_reason == "error"
        counters.requests += 1
        counters.failed_requests += failed
        counters.output_tokens += report.completion_tokens
        if report.steps is None:
            self.unreported_requests += 1
        steps = report.steps or ()
        others = request.stretches[1:]
        self._count(request, steps)
        if request.block is not None:
            self._observe(request, report, failed=failed)
        on_end(
            SpeculationReport(
                draft=first.name,
                draft_digest=first.digest,
                arm=first.arm,
                steps=len(steps),
                drafted_tokens=sum(drafted for drafted, _ in steps),
                accepted_tokens=sum(accepted for _, accepted in steps),
                own_steps=others[0].since_step if others else None,
            )
        )

    def close_pair(self, block: Block) -> None:
        """Both of its blocks are over."""
        self._pairs.close(block, now=self.clock())
        self._tell_pairs()

    def discard_pair(self, block: Block) -> None:
        self._pairs.discard(block)

    def _tell_pairs(self) -> None:
        for rollout_id, outcome in self._pairs.due(self.clock()):
            self.outcomes.record(rollout_id, outcome)

    def _count(self, request: InFlight, steps: tuple[tuple[int, int], ...]) -> None:
        ends = [stretch.since_step for stretch in request.stretches[1:]] + [len(steps)]
        for stretch, end in zip(request.stretches, ends, strict=True):
            counters = self.arms[stretch.serving.arm]
            for drafted, accepted in steps[stretch.since_step : end]:
                counters.observe_step(drafted, accepted)
                # A grammar ruled out all that was drafted: vLLM counts the step.
                counters.verify_steps += drafted == 0

    def _observe(self, request: InFlight, report: Report, *, failed: bool) -> None:
        """Evidence ends at the first switch: later steps are another draft's."""
        block, steps = request.block, report.steps or ()
        assert block is not None
        if len(request.stretches) > 1:
            steps = steps[: request.stretches[1].since_step]
        decoding = request.last_at - (request.first_at or request.last_at)
        tokens = report.completion_tokens - 1
        waiting = (request.first_at or request.begun_at) - request.begun_at
        served = Served(
            drafted_tokens=sum(drafted for drafted, _ in steps),
            accepted_tokens=sum(accepted for _, accepted in steps),
            time_to_first_token_us=int(waiting * 1e6),
            time_per_output_token_us=int(decoding * 1e6 / tokens) if tokens > 0 else 0,
        )
        self._pairs.end(block, served, failed=failed)
        self._tell_pairs()
