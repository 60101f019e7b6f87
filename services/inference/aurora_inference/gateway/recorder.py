"""Turns answered requests into trajectories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aurora_inference.contract import SpeculationReport
from aurora_inference.gateway.answer import Report
from aurora_inference.gateway.question import Question
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
            VerifyStep(drafted, accepted, batch_size=0, microseconds=0)
            for drafted, accepted in report.steps or ()
        ),
        distributions=None,
    )


class Recorder:
    """Hands completions on, those with a capture to `awaiting` first."""

    def __init__(
        self, record: Callable[[Completion], None], awaiting: Callable[[Completion], None]
    ) -> None:
        self._record = record
        self._awaiting = awaiting

    def ended(self, asked: Question, report: Report, served: SpeculationReport) -> None:
        found = completion(asked, report, served)
        if found is not None:
            (self._awaiting if asked.capture else self._record)(found)
