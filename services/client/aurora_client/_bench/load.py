"""Sends requests at a fixed concurrency and measures each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aurora_client._errors import AuroraClientError


@dataclass(frozen=True, slots=True)
class Piece:
    """One response's contribution; None for what it does not report."""

    has_text: bool
    output_tokens: int | None = None
    acceptance: Acceptance | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How well one request was drafted for, by whatever; `steps` None if not reported."""

    drafted_tokens: int
    accepted_tokens: int
    steps: int | None


class Endpoint(Protocol):
    """A server that streams completions."""

    def stream(self, prompt: str) -> AsyncIterator[Piece]:
        """Streams one completion. Raises AuroraClientError on failure."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One request; times are seconds on a monotonic clock, `error` is empty on success."""

    started_at: float
    first_at: float
    ended_at: float
    output_tokens: int
    acceptance: Acceptance | None = None
    error: str = ""

    @property
    def seconds_to_first_token(self) -> float:
        return self.first_at - self.started_at

    @property
    def seconds_per_output_token(self) -> float | None:
        """Decoding time per token after the first; None below two tokens."""
        if self.output_tokens < 2:
            return None
        return (self.ended_at - self.first_at) / (self.output_tokens - 1)


async def run_load(
    endpoint: Endpoint,
    prompts: Sequence[str],
    *,
    concurrency: int,
    on_sample: Callable[[Sample], None],
) -> list[Sample]:
    """Sends every prompt once, keeping `concurrency` requests in flight."""
    waiting = iter(prompts)
    samples: list[Sample] = []

    async def worker() -> None:
        for prompt in waiting:
            sample = await _measure(endpoint, prompt)
            samples.append(sample)
            on_sample(sample)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(prompts))):
            group.create_task(worker())
    return samples


async def _measure(endpoint: Endpoint, prompt: str) -> Sample:
    started_at = time.perf_counter()
    first_at: float | None = None
    output_tokens = 0
    acceptance = None
    error = ""
    try:
        async for piece in endpoint.stream(prompt):
            if piece.has_text and first_at is None:
                first_at = time.perf_counter()
            if piece.output_tokens is not None:
                output_tokens = piece.output_tokens
            acceptance = piece.acceptance or acceptance
    except AuroraClientError as failure:
        error = f"{type(failure).__name__} ({failure.detail})"
    ended_at = time.perf_counter()
    return Sample(started_at, first_at or ended_at, ended_at, output_tokens, acceptance, error)
