"""What `generate` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aurora_client._errors import BadResponseError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted by the server."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Speculation:
    """How the draft performed on one request.

    `draft` is the checkpoint's name, empty if none served; `arm` is `stable` or `candidate`. What
    n-grams drafted, without a draft or after it failed, is counted apart from what it drafted.
    """

    draft: str
    draft_digest: str
    arm: str
    steps: int
    drafted_tokens: int
    accepted_tokens: int
    ngram_drafted_tokens: int = 0
    ngram_accepted_tokens: int = 0

    @property
    def acceptance_rate(self) -> float | None:
        """The draft's accepted tokens / drafted tokens; None if it drafted nothing."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else None

    @property
    def ngram_acceptance_rate(self) -> float | None:
        """Likewise of n-grams."""
        if not self.ngram_drafted_tokens:
            return None
        return self.ngram_accepted_tokens / self.ngram_drafted_tokens

    @property
    def mean_acceptance_length(self) -> float | None:
        """1 + accepted tokens / verify steps, whatever drafted; None without a step.

        Counts the bonus token.
        """
        accepted = self.accepted_tokens + self.ngram_accepted_tokens
        return 1 + accepted / self.steps if self.steps else None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a completion; the fields that may be None are set on the last one."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    speculation: Speculation | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole completion."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    speculation: Speculation


def joined(chunks: Sequence[Chunk], *, address: str) -> Completion:
    """Joins a completion's chunks. Raises BadResponseError if the last one is missing."""
    last = chunks[-1] if chunks else None
    if last is None or last.finish_reason is None or last.usage is None or last.speculation is None:
        raise BadResponseError("the completion ended without its last response", address=address)
    return Completion(
        request_id=last.request_id,
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
        finish_reason=last.finish_reason,
        usage=last.usage,
        speculation=last.speculation,
    )
