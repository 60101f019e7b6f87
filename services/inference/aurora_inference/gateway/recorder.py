"""Turns answered requests into trajectories, which tell when they were admitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aurora_inference.contract import SpeculationReport
from aurora_inference.gateway.answer import Report
from aurora_inference.gateway.question import Question
from aurora_inference.trajectory.admission import Admissions
from aurora_inference.trajectory.completion import Completion, VerifyStep


def completion(asked: Question, report: Report, served: SpeculationReport) -> Completion | None:
    """The request with its token ids; None if it may not be kept, or not all of it is known.

    How long a step took and what else was in its batch is not known in front of the engine: 0.
    """
    ended = report.finish_reason in ("stop", "length")
    if not (asked.request.record and ended and report.has_token_ids):
        return None
    return Completion(
        request=replace(asked.request, prompt_tokens=report.prompt_tokens),
        output_tokens=report.output_tokens,
        report=served,
        steps=tuple(
            VerifyStep(
                drafted,
                accepted,
                batch_size=0,
                microseconds=0,
                by_other=served.own_steps is not None and number >= served.own_steps,
            )
            for number, (drafted, accepted) in enumerate(report.steps or ())
        ),
        distributions=None,
    )


class Recorder:
    """Hands completions on to `send`, those with a capture by way of `Captures`."""

    def __init__(self, send: Callable[[Completion], None], admissions: Admissions) -> None:
        self._send = send
        self._admissions = admissions

    def ended(
        self,
        await_capture: Callable[[Completion], None],
        asked: Question,
        report: Report,
        served: SpeculationReport,
    ) -> None:
        """A request has ended; `await_capture` calls `record` later."""
        found = completion(asked, report, served)
        if found is None:
            self._admissions.end(asked.request.id)
        elif asked.capture:
            await_capture(found)
        else:
            self.record(found)

    def record(self, found: Completion) -> None:
        """Records a completion now, which ends its request."""
        self._send(replace(found, admission=self._admissions.end(found.request.id)))
