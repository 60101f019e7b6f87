"""The thread that owns the engine; all access to the engine goes through it, between two steps."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from aurora_common.errors import DeviceLostError, OverloadedError, UnavailableError
from aurora_inference.contract import Progress, Request, Sink
from aurora_inference.native.engine import Engine, ended_early
from aurora_inference.native.scheduler import check

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BROKEN_PAUSE_SECONDS = 1.0
# A step, prefill of a long prompt's piece included, takes far less.
_HANGING_SECONDS = 30.0
# In a row: a single one may be the fault of a request.
_FAILING_STEPS = 3


class EngineWorker:
    """Runs the engine's steps and passes each request's progress to its sink.

    `max_inflight`: requests beyond it, running and waiting together, are rejected at once.
    `on_lost` is called on the engine's thread once no further step can succeed.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_inflight: int,
        on_lost: Callable[[DeviceLostError], object] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._on_lost = on_lost
        self._max_inflight = max_inflight
        self._inbox: deque[Callable[[], None]] = deque()
        self._sinks: dict[str, Sink] = {}
        self._lock = threading.Condition()
        self._failed_steps, self._failure = 0, ""
        # When the thread last had work to do and began with it; None while it waits for some.
        self._working_since: float | None = None
        self._stopping = False
        self._stop_at = 0.0
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    @property
    def problem(self) -> str:
        """Why the last steps failed, or that one hangs; empty if all is well."""
        since = self._working_since
        if since is not None and (seconds := time.monotonic() - since) > _HANGING_SECONDS:
            return f"a decode step has taken {seconds:.0f} s so far"
        return self._failure if self._failed_steps >= _FAILING_STEPS else ""

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, drain_seconds: float) -> None:
        """Rejects new requests, lets those in flight finish until the deadline, then ends them."""
        with self._lock:
            self._stopping = True
            self._stop_at = time.monotonic() + drain_seconds
            self._lock.notify()
        self._thread.join()

    def submit(self, request: Request, sink: Sink) -> None:
        """Starts a request.

        Raises InvalidInputError if it can never run, OverloadedError if the engine is full,
        UnavailableError if it is stopping.
        """
        check(request, self._engine.max_context_tokens)
        with self._lock:
            if self._stopping:
                raise UnavailableError("the server is stopping and takes no new requests")
            if len(self._sinks) >= self._max_inflight:
                raise OverloadedError(
                    f"{len(self._sinks)} requests are running or waiting, the most allowed; "
                    "try again later"
                )
            self._sinks[request.id] = sink
            self._inbox.append(lambda: self._begin(request))
            self._lock.notify()

    def _begin(self, request: Request) -> None:
        if request.id not in self._sinks:
            return
        try:
            self._engine.submit(request)
        except Exception:
            logger.exception("request refused", extra={"fields": {"request_id": request.id}})
            self._deliver([ended_early(request.id, "error")])

    def cancel(self, request_id: str, *, answered: bool = False) -> None:
        self._post(lambda: self._deliver(self._engine.cancel(request_id, answered=answered)))

    def between_steps(self, operation: Callable[[], T]) -> Future[T]:
        """Runs an operation of the engine on its thread, between two steps."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(operation())
            except Exception as error:  # noqa: BLE001 - handed to the caller
                future.set_exception(error)

        self._post(call)
        return future

    def _post(self, call: Callable[[], None]) -> None:
        with self._lock:
            self._inbox.append(call)
            self._lock.notify()

    def _loop(self) -> None:
        while self._wait_for_work():
            self._working_since = time.monotonic()
            self._empty_inbox()
            try:
                self._deliver(self._engine.step())
            except Exception as error:
                self._failed_steps += 1
                self._failure = f"decode steps fail: {type(error).__name__}"
                logger.exception("decode step failed; all requests in flight end with an error")
                self._fail_all()
                if isinstance(error, DeviceLostError):
                    self._on_lost(error)
            else:
                self._failed_steps = 0
        self._fail_all()
        self._empty_inbox()

    def _empty_inbox(self) -> None:
        while self._inbox:
            try:
                self._inbox.popleft()()
            except Exception:
                # One call must not end the thread that serves all others.
                logger.exception("engine call failed")

    def _fail_all(self) -> None:
        """Every request gets its end, even from an engine that can no longer tell of it."""
        try:
            self._deliver(self._engine.fail_all())
        except Exception:
            logger.exception("the engine could not end its requests")
            time.sleep(_BROKEN_PAUSE_SECONDS)
        for request_id in list(self._sinks):
            self._deliver([ended_early(request_id, "error")])

    def _wait_for_work(self) -> bool:
        """Blocks while idle; False once the worker should stop."""
        with self._lock:
            while self._engine.idle and not self._inbox:
                self._working_since = None
                if self._stopping:
                    return False
                self._lock.wait()
            return not (self._stopping and time.monotonic() > self._stop_at)

    def _deliver(self, progress: list[Progress]) -> None:
        for one in progress:
            sink = self._sinks.get(one.request_id)
            if one.finish_reason is not None:
                with self._lock:
                    self._sinks.pop(one.request_id, None)
            if sink is None:
                continue
            try:
                sink(one)
            except Exception:
                fields = {"request_id": one.request_id}
                logger.exception("request's receiver failed", extra={"fields": fields})
