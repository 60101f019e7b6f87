"""Response bodies of OpenAI's API, and what Aurora adds to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from aurora_inference.contract import SpeculationReport
from aurora_inference.serving.generation import Ending, Piece

JsonObject = dict[str, object]

_DRAFT_HEADER = "x-aurora-draft"
_ACCEPTANCE_HEADER = "x-aurora-acceptance"
EXPOSED_HEADERS = (_DRAFT_HEADER, _ACCEPTANCE_HEADER)


@dataclass(frozen=True, slots=True)
class Reply:
    """Builds the response bodies of one request; `created` is Unix time in seconds."""

    kind: Literal["completion", "chat"]
    id: str
    model: str
    created: int

    def whole(self, text: str, ending: Ending) -> JsonObject:
        choice: JsonObject = {"index": 0, "logprobs": None, "finish_reason": ending.finish_reason}
        if self.kind == "chat":
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        return {
            **self._head(streamed=False),
            "choices": [choice],
            "usage": usage(ending.prompt_tokens, ending.completion_tokens),
            "aurora": speculation(ending.report),
        }

    def opening(self) -> JsonObject | None:
        """The chunk before the first text; completions have none."""
        if self.kind == "completion":
            return None
        delta = {"role": "assistant", "content": ""}
        return {**self._head(streamed=True), "choices": [_chat_choice(delta, None)]}

    def chunk(self, piece: Piece) -> JsonObject:
        """A piece of the text; the last one has the finish reason."""
        reason = piece.ending.finish_reason if piece.ending else None
        if self.kind == "chat":
            choice = _chat_choice({"content": piece.text} if piece.text else {}, reason)
        else:
            choice = {"index": 0, "text": piece.text, "logprobs": None, "finish_reason": reason}
        return {**self._head(streamed=True), "choices": [choice]}

    def closing(self, ending: Ending) -> JsonObject:
        """The chunk after the last text, with the usage."""
        return {
            **self._head(streamed=True),
            "choices": [],
            "usage": usage(ending.prompt_tokens, ending.completion_tokens),
            "aurora": speculation(ending.report),
        }

    def _head(self, *, streamed: bool) -> JsonObject:
        kind = "text_completion"
        if self.kind == "chat":
            kind = "chat.completion.chunk" if streamed else "chat.completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(prompt_tokens: int, completion_tokens: int) -> JsonObject:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def speculation(report: SpeculationReport) -> JsonObject:
    """Which draft served a request and how well; its rate is null if it drafted nothing.

    The mean acceptance length counts what n-grams drafted too.
    """
    rate = acceptance_rate(report)
    accepted = report.accepted_tokens + report.ngram_accepted_tokens
    length = 1 + accepted / report.steps if report.steps else None
    return {
        "draft": report.draft,
        "draft_digest": report.draft_digest,
        "arm": report.arm,
        "drafted_tokens": report.drafted_tokens,
        "accepted_tokens": report.accepted_tokens,
        "ngram_drafted_tokens": report.ngram_drafted_tokens,
        "ngram_accepted_tokens": report.ngram_accepted_tokens,
        "acceptance_rate": rate,
        "mean_acceptance_length": length,
    }


def speculation_headers(report: SpeculationReport) -> dict[str, str]:
    """The same in short; headers are ASCII, so the draft's name is percent-encoded."""
    rate = acceptance_rate(report)
    acceptance = {} if rate is None else {_ACCEPTANCE_HEADER: f"{rate:.4f}"}
    return {_DRAFT_HEADER: quote(report.draft), **acceptance}


def acceptance_rate(report: SpeculationReport) -> float | None:
    """accepted / drafted; None if the draft drafted nothing."""
    return report.accepted_tokens / report.drafted_tokens if report.drafted_tokens else None


def _chat_choice(delta: dict[str, str], reason: str | None) -> JsonObject:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
