"""One request in the engine, as a stream of text."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

from aurora_common.errors import AuroraError, UnavailableError
from aurora_inference.contract import GenerationEngine, Progress, Request, SpeculationReport
from aurora_inference.serving.detokenizer import Detokenizer, StopStrings
from aurora_inference.serving.metrics import RequestMetrics


class EngineFailedError(AuroraError):
    """The engine failed while the request was in flight."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended. `completion_tokens` counts up to the token that completed the stop."""

    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    report: SpeculationReport


@dataclass(frozen=True, slots=True)
class Piece:
    """New text and new tokens; text may lag behind. The last piece carries the ending."""

    text: str
    token_ids: tuple[int, ...]
    completion_tokens: int
    ending: Ending | None = None


class Generation:
    """Iterate once; call `cancel` when leaving early, or the engine keeps generating.

    Raises EngineFailedError or UnavailableError if the engine aborts the request.
    """

    def __init__(
        self,
        engine: GenerationEngine,
        tokenizer: Tokenizer,
        request: Request,
        *,
        stop: tuple[str, ...],
        metrics: RequestMetrics,
    ) -> None:
        self.request = request
        self._engine = engine
        self._metrics = metrics
        self._detokenizer = Detokenizer(tokenizer, request.prompt_tokens)
        self._stops = StopStrings(stop) if stop else None
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[tuple[float, Progress]] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._started_at = self._last_at = time.perf_counter()
        self._first_at: float | None = None
        engine.submit(request, self._on_progress)

    def cancel(self) -> None:
        """Ends the request in the engine; a no-op if it has ended."""
        self._end(answered=False)

    def _end(self, *, answered: bool) -> None:
        if not self._ended:
            self._ended = True
            self._engine.cancel(self.request.id, answered=answered)

    def _on_progress(self, progress: Progress) -> None:
        """Called on the engine's thread, once per step."""
        self._arrived.append((time.perf_counter(), progress))
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:  # the loop is closed
            return

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._arrived:
                at, progress = self._arrived.popleft()
                if progress.token_ids:
                    self._observe(at)
                piece = await self._piece(progress)
                if piece.ending is not None:
                    self._observe_end(piece.ending)
                yield piece
                if piece.ending is not None:
                    return

    def _observe(self, at: float) -> None:
        if self._first_at is None:
            self._first_at = at
            self._metrics.first_token(at - self._started_at)
        else:
            self._metrics.next_tokens(at - self._last_at)
        self._last_at = at

    def _observe_end(self, ending: Ending) -> None:
        first_at = self._first_at if self._first_at is not None else self._last_at
        self._metrics.ended(
            ending.prompt_tokens,
            ending.completion_tokens,
            seconds=self._last_at - self._started_at,
            decode_seconds=self._last_at - first_at,
        )

    async def _piece(self, progress: Progress) -> Piece:
        match progress.finish_reason:
            case "error":
                self._ended = True
                raise EngineFailedError("the engine failed on this request")
            case "cancelled":
                self._ended = True
                raise UnavailableError("the server is stopping; the request was not finished")
        # A stop token has no text.
        hidden = 1 if progress.finish_reason == "stop" else 0
        shown = progress.token_ids[: len(progress.token_ids) - hidden]
        if self._stops is not None:
            return await self._piece_within_stops(progress, shown, self._stops)
        self._count += len(progress.token_ids)
        text = self._detokenizer.push(shown) if shown else ""
        if progress.finish_reason is None:
            return Piece(text, progress.token_ids, self._count)
        return self._last(text + self._detokenizer.flush(), progress.token_ids, progress)

    async def _piece_within_stops(
        self, progress: Progress, shown: tuple[int, ...], stops: StopStrings
    ) -> Piece:
        """As `_piece`, one token at a time, to find the token that completes a stop string."""
        text = ""
        for place, token in enumerate(shown, start=1):
            self._count += 1
            text += stops.push(self._detokenizer.push((token,)))
            if stops.found:
                return await self._stopped(text, progress.token_ids[:place], progress)
        self._count += len(progress.token_ids) - len(shown)
        if progress.finish_reason is None:
            return Piece(text, progress.token_ids, self._count)
        text += stops.push(self._detokenizer.flush())
        return self._last(text + stops.flush(), progress.token_ids, progress)

    async def _stopped(self, text: str, token_ids: tuple[int, ...], progress: Progress) -> Piece:
        """Ends the request in the engine and waits for its final report."""
        self._end(answered=True)
        while progress.finish_reason is None:
            while not self._arrived:
                await self._wake.wait()
                self._wake.clear()
            _, progress = self._arrived.popleft()
        return self._last(text, token_ids, progress, stopped=True)

    def _last(
        self,
        text: str,
        token_ids: tuple[int, ...],
        progress: Progress,
        *,
        stopped: bool = False,
    ) -> Piece:
        self._ended = True
        assert progress.report is not None
        ending = Ending(
            finish_reason="length"
            if progress.finish_reason == "length" and not stopped
            else "stop",
            prompt_tokens=len(self.request.prompt_tokens),
            completion_tokens=self._count,
            report=progress.report,
        )
        return Piece(text, token_ids, self._count, ending)
