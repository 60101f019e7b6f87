"""Sends finished requests to the buffer; a slow or dead buffer never delays a request."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_common.grpc_server import MESSAGE_OPTIONS
from aurora_common.kept_running import kept_running
from aurora_common.tls import CertificateFolder, Connection
from aurora_inference.trajectory.backlog import Backlog, Finished
from aurora_inference.trajectory.completion import Completion
from aurora_inference.trajectory.record import trajectory

logger = logging.getLogger(__name__)

# Not retryable: the buffer will never accept that batch.
_REFUSED = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.DATA_LOSS}
)
# The operator asks once a minute, and reports what fails for two.
_PROBLEM_SECONDS = 60.0
_OPTIONS = (
    *MESSAGE_OPTIONS,
    # gRPC's default backoff of up to two minutes would ignore a buffer that has recovered.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """Bounds and pace of sending.

    `linger_seconds`: how long the first of a batch waits for others. The backoff doubles from
    `least` to `most`; each wait is shortened by a random amount up to half.
    """

    max_entries: int = 4096
    max_bytes: int = 256 << 20
    batch_entries: int = 64
    batch_bytes: int = 4 << 20
    linger_seconds: float = 0.1
    call_deadline_seconds: float = 10.0
    least_backoff_seconds: float = 0.1
    most_backoff_seconds: float = 5.0


class TrajectorySender:
    """Keeps finished requests, within its bounds, until the buffer has acknowledged them.

    Delivery is at least once: a batch whose acknowledgement is lost is sent again.
    """

    def __init__(
        self,
        address: str,
        *,
        target_digest: str,
        tokenizer_digest: str,
        certificates: CertificateFolder | None = None,
        settings: SenderSettings | None = None,
    ) -> None:
        self._settings = settings or SenderSettings()
        self._target_digest = target_digest
        self._tokenizer_digest = tokenizer_digest
        self._connection = Connection(address, certificates=certificates, options=_OPTIONS)
        self._backlog = Backlog(
            max_entries=self._settings.max_entries, max_bytes=self._settings.max_bytes
        )
        self._in_flight = 0
        self._sent = 0
        self._refused = 0
        # Unix time since when something waits and nothing was acknowledged, and why.
        self._unrecorded_since: float | None = None
        self._cause = ""
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._flushed = asyncio.Event()
        self._failures = 0
        self._task = asyncio.create_task(
            kept_running("trajectory sender", self._run, on_end=self._broke_off)
        )

    @property
    def sent(self) -> int:
        """Trajectories acknowledged by the buffer."""
        return self._sent

    @property
    def dropped(self) -> int:
        """Trajectories lost: the backlog was full, or the buffer rejected them for good."""
        return self._backlog.dropped + self._refused

    @property
    def queued(self) -> int:
        """Trajectories not yet acknowledged."""
        return len(self._backlog) + self._in_flight

    @property
    def problem(self) -> str:
        """Why nothing has been recorded for a minute though requests were; empty if it has."""
        since = self._unrecorded_since
        if since is None or time.time() - since < _PROBLEM_SECONDS:
            return ""
        at = datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
        return f"no trajectory has been recorded since {at}: {self._cause}"

    @property
    def failures(self) -> int:
        """How often sending had to be started again."""
        return self._failures

    def record(self, completion: Completion) -> None:
        """Queues a finished request; called on the engine's thread, never blocks or raises."""
        self._backlog.put(completion, time.time_ns() // 1_000_000)
        if self._unrecorded_since is None:
            self._unrecorded_since = time.time()
        # Only the event loop clears it, before it drains the backlog: no wake-up is lost.
        if not self._arrived.is_set():
            self._wake()

    async def stop(self, *, flush_seconds: float) -> None:
        """Flushes for at most `flush_seconds`, then stops; logs how many were not sent."""
        self._stopping.set()
        self._arrived.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(flush_seconds):
                await self._flushed.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._connection.close()
        if self.queued:
            logger.warning("unsent trajectories lost", extra={"fields": {"count": self.queued}})

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop is closed: the process is ending
            return

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if len(self._backlog) < self._settings.batch_entries:
                await self._pause(self._settings.linger_seconds)
            self._arrived.clear()
            while batch := self._backlog.take(
                max_entries=self._settings.batch_entries,
                max_bytes=self._settings.batch_bytes,
            ):
                self._in_flight = len(batch)
                try:
                    await self._deliver(batch)
                except Exception as error:
                    self._cause = f"sending broke off: {type(error).__name__}"
                    self._refused += self._in_flight
                    self._in_flight = 0
                    raise
                self._in_flight = 0
            if self._stopping.is_set():
                self._flushed.set()

    async def _broke_off(self) -> None:
        self._failures += 1

    async def _deliver(self, batch: list[Finished]) -> None:
        """Sends a batch until the buffer has acknowledged or rejected it."""
        trajectories = [built for each in batch if (built := self._trajectory(each)) is not None]
        self._refused += len(batch) - len(trajectories)
        self._in_flight = len(trajectories)
        request = buffer_pb2.AppendRequest(trajectories=trajectories)
        backoff = self._settings.least_backoff_seconds
        while True:
            try:
                channel = self._connection.channel()
                stub = buffer_pb2_grpc.BufferStub(channel)  # type: ignore[no-untyped-call]
                await stub.Append(iter([request]), timeout=self._settings.call_deadline_seconds)
            except grpc.aio.AioRpcError as error:
                fields = {"code": error.code().name, "reason": error.details()}
                self._cause = f"the buffer answers {error.code().name}: {error.details()}"
                if error.code() in _REFUSED:
                    logger.error("buffer rejected trajectories; dropped", extra={"fields": fields})
                    self._refused += len(trajectories)
                    break
                logger.warning("buffer unavailable; will retry", extra={"fields": fields})
            else:
                self._sent += len(trajectories)
                self._unrecorded_since = time.time() if len(self._backlog) else None
                break
            await self._pause(backoff * random.uniform(0.5, 1.0))
            backoff = min(2 * backoff, self._settings.most_backoff_seconds)

    def _trajectory(self, finished: Finished) -> buffer_pb2.Trajectory | None:
        """None if it has a value that the message cannot hold: the others must still be sent."""
        try:
            return trajectory(
                finished.completion,
                target_digest=self._target_digest,
                tokenizer_digest=self._tokenizer_digest,
                finished_at_ms=finished.finished_at_ms,
            )
        except (ValueError, TypeError) as error:
            # Without its text, which may hold a token.
            self._cause = f"they cannot be encoded: {type(error).__name__}"
            fields = {"request_id": finished.completion.request.id, "error": type(error).__name__}
            logger.error("trajectory cannot be encoded; dropped", extra={"fields": fields})
            return None

    async def _pause(self, seconds: float) -> None:
        """Sleeps, cut short once stopping; then only the least backoff."""
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, self._settings.least_backoff_seconds))
            return
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
