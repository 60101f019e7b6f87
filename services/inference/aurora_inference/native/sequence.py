"""One request in flight."""

from __future__ import annotations

from aurora_inference.contract import Request, SpeculationReport
from aurora_inference.native.draft_cost import OwnTime
from aurora_inference.native.ngram import MatchRate, NgramHistory
from aurora_inference.native.portfolio import Trial
from aurora_inference.slots.slots import Assignment
from aurora_inference.trajectory.completion import VerifyStep


class Sequence:
    """A request's tokens, how many of them each model has cached, and what it has cost so far.

    `cached` counts the tokens whose keys the target holds: all but the newest once it decodes.
    `draft_cached` counts those of its drafter. `draft_failed`: its draft raised an error, and it
    goes on without. `history`: what n-grams are drafted from; None with a draft.
    """

    def __init__(
        self, request: Request, assignment: Assignment, trial: Trial | None = None
    ) -> None:
        """`trial`: what is known of its drafts; None without one."""
        self.request = request
        self.assignment = assignment
        self.trial = trial
        self.tokens = list(request.prompt_tokens)
        self.cached = 0
        self.draft_cached = 0
        self.draft_failed = False
        # Seconds of a monotonic clock; 0: not yet.
        self.admitted_at = 0.0
        self.history: NgramHistory | None = None
        self.first_token_at = 0.0
        self.own_time = OwnTime()
        self.steps: list[VerifyStep] = []
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self.ngram_drafted_tokens = 0
        self.ngram_accepted_tokens = 0

    @property
    def draft_digest(self) -> str | None:
        """The draft that proposes its tokens; None without one."""
        return None if self.trial is None or self.draft_failed else self.trial.digest

    @property
    def output_tokens(self) -> list[int]:
        return self.tokens[len(self.request.prompt_tokens) :]

    @property
    def output_count(self) -> int:
        return len(self.tokens) - len(self.request.prompt_tokens)

    @property
    def remaining_tokens(self) -> int:
        return self.request.max_tokens - self.output_count

    @property
    def match_length(self) -> int:
        """How long a match n-grams can be drafted from; 0: none."""
        return 0 if self.history is None else self.history.match_length

    def match(self, rate: MatchRate) -> None:
        """Lets n-grams match the tokens that the target has read, unless a draft drafts for them.

        `rate`: that of all requests.
        """
        if self.draft_digest is not None:
            return
        if self.history is None:
            self.history = NgramHistory(len(self.request.prompt_tokens), rate)
        known = len(self.tokens) if self.output_count else self.cached
        self.history.read(self.tokens[len(self.history) : known])

    def advance(self, emitted: list[int], step: VerifyStep | None) -> None:
        """Appends a step's tokens, or the first token if there was no step.

        Keys of rejected tokens stay in the caches; they are undone by not counting them.
        """
        verified = len(self.tokens)
        if step is not None:
            self.steps.append(step)
            verified += step.accepted + step.ngram_accepted
            self.drafted_tokens += step.drafted
            self.accepted_tokens += step.accepted
            self.ngram_drafted_tokens += step.ngram_drafted
            self.ngram_accepted_tokens += step.ngram_accepted
        self.tokens += emitted
        self.cached = len(self.tokens) - 1
        self.draft_cached = min(self.draft_cached, verified)

    def report(self) -> SpeculationReport:
        draft = self.assignment.draft
        return SpeculationReport(
            draft=draft.name if draft else "",
            draft_digest=draft.digest if draft else "",
            arm=self.assignment.arm,
            steps=len(self.steps),
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
            ngram_drafted_tokens=self.ngram_drafted_tokens,
            ngram_accepted_tokens=self.ngram_accepted_tokens,
        )
