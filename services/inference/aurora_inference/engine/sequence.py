"""One request in flight."""

from __future__ import annotations

import torch
from torch import Tensor

from aurora_inference.engine.capture import CapturedRows
from aurora_inference.engine.request import Request, SpeculationReport, VerifyStep
from aurora_inference.engine.traffic import Assignment


class Sequence:
    """A request's tokens, how many of them each model has cached, and what it has cost so far.

    `cached` counts the tokens whose keys the target holds: all but the newest once it decodes.
    """

    def __init__(self, request: Request, assignment: Assignment) -> None:
        self.request = request
        self.assignment = assignment
        self.draft = assignment.draft
        self.tokens = list(request.prompt_tokens)
        self.cached = 0
        self.draft_cached = 0
        self.first_token_at = 0.0
        self.steps: list[VerifyStep] = []
        self.captured: list[CapturedRows] = []
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self._generator = torch.Generator()
        if request.sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(request.sampling.seed)

    @property
    def output_tokens(self) -> list[int]:
        return self.tokens[len(self.request.prompt_tokens) :]

    @property
    def output_count(self) -> int:
        return len(self.tokens) - len(self.request.prompt_tokens)

    @property
    def remaining_tokens(self) -> int:
        return self.request.max_tokens - self.output_count

    def uniforms(self, count: int) -> Tensor:
        """[count] float32 in [0, 1), from the request's own generator."""
        return torch.rand(count, generator=self._generator)

    def report(self) -> SpeculationReport:
        return SpeculationReport(
            draft=self.draft.name if self.draft else "",
            draft_digest=self.draft.digest if self.draft else "",
            arm=self.assignment.arm,
            steps=len(self.steps),
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
        )
