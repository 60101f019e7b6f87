"""The background worker that compares the drafts it was last asked about."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from aurora.buffer.v1 import buffer_pb2
from aurora_common.errors import AuroraError, ConflictError, UnavailableError
from aurora_common.outage import Outage
from aurora_trainer.data.sample import stream_order
from aurora_trainer.judge.comparison import Pair, Score, Unjudged
from aurora_trainer.judge.metrics import JudgeMetrics

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Scores held for the caller; while there are so many, no more are computed.
KEPT_SCORES = 4096


class Source(Protocol):
    """Where recorded requests are read."""

    @property
    def problem(self) -> str:
        """What has failed for a minute; empty if nothing."""

    async def read(self, after: str) -> Sequence[buffer_pb2.Entry]:
        """Entries after a stream id, empty for the oldest; none at the end, or after a failure."""

    async def close(self) -> None: ...


class Scorer(Protocol):
    """Two drafts in memory."""

    def score(self, entry: buffer_pb2.Entry) -> Score | Unjudged: ...


class Loader(Protocol):
    """Loads the drafts of a pair."""

    def load(self, pair: Pair) -> Scorer:
        """Raises ConflictError for a pair that it need not try again, or another AuroraError."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When to look again.

    `idle_seconds`: how long to go on after a question; `unload_seconds`: after which the drafts
    leave memory.
    """

    poll_seconds: float = 0.5
    reload_seconds: float = 10.0
    idle_seconds: float = 30.0
    unload_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores after a position; `next_after` is the position to ask from next.

    `refusal`: why the pair can never be compared; empty if it can, or if that is not known yet.
    """

    scores: Sequence[Score]
    next_after: str
    refusal: str


@dataclass(slots=True)
class _Progress:
    """A comparison: `scores` are those of all requests after `begin` and up to `position`."""

    pair: Pair
    begin: str
    position: str
    scores: deque[Score] = field(default_factory=deque)

    def covers(self, pair: Pair, after: str) -> bool:
        """Whether an answer for these can be given, now or by going on."""
        orders = [stream_order(each) for each in (self.begin, after, self.position)]
        return pair == self.pair and orders == sorted(orders)

    def drop_through(self, after: str) -> None:
        """Forgets scores that the caller has."""
        self.begin = after
        while self.scores and stream_order(self.scores[0].id) <= stream_order(after):
            self.scores.popleft()


@dataclass(frozen=True, slots=True)
class _Loaded:
    pair: Pair
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class _Refused:
    pair: Pair
    reason: str
    retry_at: float


class Judge:
    """Answers from memory, and scores what comes next while it is being asked.

    All state is in the caller's position: a judge that was restarted gives the same scores. It
    belongs to one event loop; drafts are loaded and requests scored one at a time on a thread.
    """

    def __init__(
        self,
        source: Source,
        loader: Loader,
        metrics: JudgeMetrics,
        *,
        timing: Timing = Timing(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._loader = loader
        self._metrics = metrics
        self._timing = timing
        self._clock = clock
        self._asked_at = -math.inf
        self._asked = asyncio.Event()
        self._progress: _Progress | None = None
        self._loaded: _Loaded | None = None
        self._refused: _Refused | None = None
        self._outage = Outage(logger)
        # One thread for good: each new one would get a team of torch's threads of its own.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judging")

    @property
    def problem(self) -> str:
        """Why requests have not been read for a minute; empty if they are."""
        return self._source.problem

    def list_scores(self, pair: Pair, *, after: str, limit: int) -> Scores:
        """At most `limit` scores after the stream id `after`; empty: from the oldest request.

        Another pair, or a position that was passed, begins another comparison. Raises
        UnavailableError while a draft cannot be loaded.
        """
        self._asked_at = self._clock()
        self._asked.set()
        if self._progress is None or not self._progress.covers(pair, after):
            self._progress = _Progress(pair, begin=after, position=after)
        progress, refused = self._progress, self._refused
        refusal = refused.reason if refused is not None and refused.pair == pair else ""
        if refused is not None and refusal and refused.retry_at < math.inf:
            raise UnavailableError(refusal)
        progress.drop_through(after)
        scores = tuple(islice(progress.scores, limit))
        complete = len(scores) == len(progress.scores)
        return Scores(
            scores=scores,
            next_after=progress.position if complete else scores[-1].id,
            refusal=refusal,
        )

    async def run(self) -> None:
        """Scores what is asked for until cancelled."""
        while True:
            self._asked.clear()
            pause_seconds = await self._advance()
            if pause_seconds != 0.0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_seconds):
                        await self._asked.wait()

    async def close(self) -> None:
        """Closes the source; what the thread is doing is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._source.close()

    async def _advance(self) -> float | None:
        """Does the next piece of work; returns when to look again, None: when asked."""
        progress, timing = self._progress, self._timing
        unasked_seconds = self._clock() - self._asked_at
        if unasked_seconds >= timing.unload_seconds:
            self._loaded = None
            return None
        if unasked_seconds >= timing.idle_seconds:
            return timing.unload_seconds - unasked_seconds
        if progress is None or len(progress.scores) >= KEPT_SCORES:
            return timing.poll_seconds
        scorer = await self._scorer(progress.pair)
        if scorer is None:
            return timing.poll_seconds
        entries = await self._source.read(progress.position)
        for entry in entries:
            if progress is not self._progress:
                break
            scored = await self._on_thread(partial(self._timed, scorer, entry))
            if isinstance(scored, Score):
                progress.scores.append(scored)
            progress.position = entry.id
        return 0.0 if entries else timing.poll_seconds

    async def _scorer(self, pair: Pair) -> Scorer | None:
        """The pair's, loaded if need be; None for now if it is refused."""
        loaded, refused = self._loaded, self._refused
        if loaded is not None and loaded.pair == pair:
            return loaded.scorer
        if refused is not None and refused.pair == pair and self._clock() < refused.retry_at:
            return None
        # Before the next take their memory.
        self._loaded = loaded = None
        try:
            scorer = await self._on_thread(partial(self._loader.load, pair))
        except AuroraError as error:
            lasting = isinstance(error, ConflictError)
            retry_at = math.inf if lasting else self._clock() + self._timing.reload_seconds
            self._refused = _Refused(pair, str(error), retry_at)
            self._outage.failed(
                "drafts are not compared", f"candidate {pair.candidate.digest}: {error}"
            )
            return None
        self._refused = None
        self._loaded = _Loaded(pair, scorer)
        self._outage.ended("drafts loaded for comparison")
        return scorer

    def _timed(self, scorer: Scorer, entry: buffer_pb2.Entry) -> Score | Unjudged:
        """Scores on the thread, and counts."""
        began = time.thread_time()
        try:
            scored = scorer.score(entry)
        except Exception as error:  # noqa: BLE001
            # One request must not keep those after it from being judged. The error may quote it.
            fields = {"id": entry.id, "error": type(error).__name__}
            logger.error("a recorded request cannot be scored", extra={"fields": fields})
            scored = Unjudged.FAILED
        self._metrics.judging_seconds.inc(time.thread_time() - began)
        if isinstance(scored, Unjudged):
            self._metrics.unjudged.labels(scored.value).inc()
        else:
            self._metrics.judged.inc()
        return scored

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
