"""The background worker that compares the pairs of drafts that it is asked about."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from aurora.buffer.v1 import buffer_pb2
from aurora_common.errors import AuroraError, ConflictError, UnavailableError
from aurora_common.outage import Outage
from aurora_trainer.judge.comparison import Pair, Score, Unjudged
from aurora_trainer.judge.inquiry import Inquiry, Progress, Refusal, Scorer
from aurora_trainer.judge.metrics import JudgeMetrics
from aurora_trainer.judge.parity import Agreement

logger = logging.getLogger(__name__)
T = TypeVar("T")

# The rollout in progress, and the watch after a promotion.
KEPT_PAIRS = 2
# Scores of a pair held for the caller; while there are so many, no more are computed.
KEPT_SCORES = 4096


class Source(Protocol):
    """Where recorded requests are read."""

    @property
    def problem(self) -> str:
        """What has failed for a minute; empty if nothing."""

    async def read(self, after: str) -> Sequence[buffer_pb2.Entry]:
        """Entries after a stream id, empty for the oldest; none at the end, or after a failure."""

    async def close(self) -> None: ...


class Loader(Protocol):
    """Loads the drafts of a pair."""

    def load(self, pair: Pair) -> Scorer:
        """Raises ConflictError for a pair that it need not try again, or another AuroraError."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When to look again.

    `idle_seconds`: how long to go on after a question about a pair; `unload_seconds`: after which
    its drafts leave memory.
    """

    poll_seconds: float = 0.5
    reload_seconds: float = 10.0
    idle_seconds: float = 30.0
    unload_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores after a position; `next_after` is the position to ask from next.

    `refusal`: why the pair can never be compared; empty if it can, or if that is not known yet.
    `agreements`: what became in service of tokens that either draft proposed, while in memory.
    """

    scores: Sequence[Score]
    next_after: str
    refusal: str
    agreements: Sequence[Agreement] = ()


class Judge:
    """Answers from memory, and scores what comes next while it is being asked.

    It keeps up with KEPT_PAIRS pairs, a page of requests of each in turn. All state is in the
    callers' positions: a judge that was restarted gives the same scores. It belongs to one event
    loop; drafts are loaded and requests scored one at a time on a thread.
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
        self._asked = asyncio.Event()
        # The one asked about longest ago is first.
        self._inquiries: OrderedDict[Pair, Inquiry] = OrderedDict()
        # One thread for good: each new one would get a team of torch's threads of its own.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judging")

    @property
    def problem(self) -> str:
        """Why requests have not been read for a minute; empty if they are."""
        return self._source.problem

    def list_scores(self, pair: Pair, *, begin: str, after: str, limit: int) -> Scores:
        """Some `limit` scores after the stream id `after`; empty: from the oldest request.

        Of requests admitted after `begin`, another stream id; empty: all. A position that was
        passed, or another `begin`, begins the comparison anew; one pair too many takes the place of
        the one asked about longest ago. Raises UnavailableError while a draft cannot be loaded.
        """
        inquiry = self._inquiry(pair, begin, after)
        refusal = inquiry.refusal
        if refusal is not None and refusal.retry_at < math.inf:
            raise UnavailableError(refusal.reason)
        scores, next_after = inquiry.progress.page(limit)
        return Scores(
            scores,
            next_after,
            refusal="" if refusal is None else refusal.reason,
            agreements=() if inquiry.scorer is None else inquiry.scorer.agreements,
        )

    async def run(self) -> None:
        """Scores what is asked for until cancelled."""
        while True:
            self._asked.clear()
            # A page of each, so that neither waits for the other's backlog.
            pauses = [await self._advance(pair) for pair in tuple(self._inquiries)]
            pause_seconds = min((each for each in pauses if each is not None), default=None)
            if pause_seconds != 0.0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_seconds):
                        await self._asked.wait()

    async def close(self) -> None:
        """Closes the source; what the thread is doing is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._source.close()

    def _inquiry(self, pair: Pair, begin: str, after: str) -> Inquiry:
        """The pair's, from a position on; notes that it was asked about."""
        inquiry = self._inquiries.get(pair)
        if inquiry is None:
            inquiry = Inquiry(pair, Outage(logger))
            self._inquiries[pair] = inquiry
        self._inquiries.move_to_end(pair)
        if len(self._inquiries) > KEPT_PAIRS:
            self._inquiries.popitem(last=False)
        inquiry.asked_at = self._clock()
        inquiry.go_to(begin, after)
        self._asked.set()
        return inquiry

    async def _advance(self, pair: Pair) -> float | None:
        """Does a pair's next piece of work; returns when to look again, None: when asked."""
        inquiry, timing = self._inquiries.get(pair), self._timing
        if inquiry is None:
            return None
        unasked_seconds = self._clock() - inquiry.asked_at
        if unasked_seconds >= timing.unload_seconds:
            inquiry.scorer = None
            return None
        if unasked_seconds >= timing.idle_seconds:
            return timing.unload_seconds - unasked_seconds
        if len(inquiry.progress.scores) >= KEPT_SCORES:
            return timing.poll_seconds
        scorer = await self._scorer(inquiry)
        if scorer is None:
            return timing.poll_seconds
        progress = inquiry.progress
        entries = await self._source.read(progress.read_through)
        for entry in entries:
            scores = await self._judged(inquiry, progress, scorer, entry)
            if scores is None:
                break
            progress.add(scores, read_through=entry.id)
        return 0.0 if entries else timing.poll_seconds

    async def _judged(
        self, inquiry: Inquiry, progress: Progress, scorer: Scorer, entry: buffer_pb2.Entry
    ) -> Sequence[Score] | None:
        """The scores of what an entry releases; None once something else is asked."""
        if progress.order.is_early(entry.trajectory.admission) and progress.is_new(entry):
            self._metrics.unjudged.labels(Unjudged.EARLY.value).inc()
        scores = []
        for each in progress.released(entry):
            if not self._is_asked(inquiry, progress):
                return None
            scored = await self._on_thread(partial(self._timed, scorer, each))
            if isinstance(scored, Score):
                scores.append(replace(scored, id=entry.id))
        return scores if self._is_asked(inquiry, progress) else None

    def _is_asked(self, inquiry: Inquiry, progress: Progress) -> bool:
        return self._inquiries.get(inquiry.pair) is inquiry and inquiry.progress is progress

    async def _scorer(self, inquiry: Inquiry) -> Scorer | None:
        """Its drafts, loaded if need be; None for now if they are refused."""
        pair, refusal = inquiry.pair, inquiry.refusal
        if inquiry.scorer is not None:
            return inquiry.scorer
        if refusal is not None and self._clock() < refusal.retry_at:
            return None
        try:
            inquiry.scorer = await self._on_thread(partial(self._loader.load, pair))
        except AuroraError as error:
            lasting = isinstance(error, ConflictError)
            retry_at = math.inf if lasting else self._clock() + self._timing.reload_seconds
            inquiry.refusal = Refusal(str(error), retry_at)
            inquiry.outage.failed(
                "drafts are not compared", f"candidate {pair.candidate.digest}: {error}"
            )
            return None
        inquiry.refusal = None
        inquiry.outage.ended("drafts loaded for comparison")
        return inquiry.scorer

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
