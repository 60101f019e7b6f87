"""Supervises one component: starts it, probes its readiness, restarts it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aurora_common.errors import REFUSED, AuroraError
from aurora_common.leash import LEASH_VARIABLE
from aurora_operator.adapters.probe import GrpcProbe, HttpProbe, RedisProbe
from aurora_operator.domain.arguments import ENVIRONMENT
from aurora_operator.domain.plan.observation import ComponentView
from aurora_operator.local.backoff import RESET_AFTER_SECONDS, Backoff
from aurora_operator.local.child import Child, adopted, gated
from aurora_operator.local.log_tail import LogTail
from aurora_operator.local.process_spec import ProcessSpec
from aurora_operator.local.record import ProcessRecord, RecordBook

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 0.1
_READY_CHECK_SECONDS = 0.5
_PROBE_SECONDS = 2.0
# A busy component may miss a probe.
_MISSED_PROBES = 3
# Sent from outside: the log does not say why.
_ORDERS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class Probe(Protocol):
    async def is_ready(self, timeout_seconds: float) -> bool: ...
    async def close(self) -> None: ...


_PROBES: Mapping[str, Callable[[str], Probe]] = {
    "grpc": GrpcProbe,
    "http": HttpProbe,
    "redis": RedisProbe,
}


@dataclass(frozen=True, slots=True)
class SupervisorContext:
    """Shared by all supervisors."""

    book: RecordBook
    # The file of a component's output.
    log_path: Callable[[str], Path]
    # The reading end of the leash, which every component inherits.
    leash: int | None
    is_ready: Callable[[str], bool]
    on_change: Callable[[], None]


class Supervisor:
    """One component under one spec; a changed spec gets a new supervisor."""

    def __init__(self, spec: ProcessSpec, context: SupervisorContext) -> None:
        self.spec = spec
        self.ready = False
        self.restarts = 0
        # Its last exit code says that another start would fail as well.
        self.refused = False
        self._context = context
        self._log = context.log_path(spec.name)
        self._tail = LogTail(self._log)
        self._probe: Probe = _PROBES[spec.probe](spec.address)
        self._child: Child | None = None
        self._backoff = Backoff()
        self._start_at = 0.0
        self._started_at = time.monotonic()
        self._missed_probes = 0
        self._message = "not started yet"
        record = context.book.record.processes.get(spec.name)
        if record is not None:
            self.restarts = record.restarts
            self._child = adopted(record)
            if self._child is not None:
                self._message = "starting"
                logger.info("adopted", extra={"fields": {"component": spec.name}})

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def view(self) -> ComponentView:
        return ComponentView(
            self.spec.name,
            ready=self.ready,
            failing=not self.ready and self._backoff.failures > 1,
            message="" if self.ready else self._message,
        )

    async def run(self) -> None:
        """Supervises until cancelled; the process runs on."""
        name = self.spec.name
        try:
            while True:
                before = (self.view, self.pid)
                try:
                    await self._check()
                except AuroraError as error:
                    # A full disk, for example: retried, with the reason in the status.
                    self._ended(str(error))
                except Exception:
                    # A bug must not end the supervision.
                    logger.exception(
                        "check crashed; will retry", extra={"fields": {"component": name}}
                    )
                if (self.view, self.pid) != before:
                    self._context.on_change()
                await asyncio.sleep(_READY_CHECK_SECONDS if self.ready else _CHECK_SECONDS)
        finally:
            await self._probe.close()

    async def stop(self, *, drain_seconds: float) -> None:
        """Stops the process, killing it after `drain_seconds`; call after `run` has ended."""
        self.ready, self._message = False, "stopping"
        if self._child is not None:
            await stop_child(self._child, drain_seconds=drain_seconds)
        self._child = None
        self._context.book.remove(self.spec.name)

    async def _check(self) -> None:
        if self._child is None:
            self._start_if_due()
        elif not self._child.is_alive():
            self.refused = self._child.exit_code == REFUSED
            self._ended(_exit_cause(self._child.exit_code, self._tail))
        else:
            await self._probe_ready()

    def _start_if_due(self) -> None:
        awaited = [name for name in self.spec.requires if not self._context.is_ready(name)]
        if awaited:
            self._message = f"waiting for {', '.join(awaited)}"
        elif time.monotonic() >= self._start_at:
            self._start()

    def _start(self) -> None:
        name, leash = self.spec.name, self._context.leash
        self._started_at = time.monotonic()
        environment = {**os.environ, **ENVIRONMENT, **self.spec.environment}
        environment.pop(LEASH_VARIABLE, None)
        if leash is not None:
            environment[LEASH_VARIABLE] = str(leash)
        self._tail = LogTail(self._log)
        child = gated(self.spec.argv, log=self._log, environment=environment, leash=leash)
        try:
            self._context.book.put(
                name,
                ProcessRecord(
                    pid=child.pid,
                    create_time=child.create_time,
                    command_digest=self.spec.digest,
                    restarts=self.restarts,
                ),
            )
        except AuroraError:
            child.kill()
            raise
        child.release()
        self._child = child
        self._missed_probes = 0
        if self._backoff.failures == 0:
            self._message = "starting"
        fields = {"component": name, "pid": child.pid, "restarts": self.restarts}
        logger.info("started", extra={"fields": fields})

    def _ended(self, message: str) -> None:
        up_seconds = time.monotonic() - self._started_at
        self._child, self.ready, self._message = None, False, message
        self._backoff = self._backoff.after_exit(up_seconds)
        self._start_at = time.monotonic() + self._backoff.delay_seconds
        self.restarts += 1
        fields = {
            "component": self.spec.name,
            "reason": message,
            "restart_in_seconds": self._backoff.delay_seconds,
        }
        logger.warning("exited; will restart", extra={"fields": fields})

    async def _probe_ready(self) -> None:
        if await self._probe.is_ready(_PROBE_SECONDS):
            self.ready, self._missed_probes = True, 0
            if time.monotonic() - self._started_at > RESET_AFTER_SECONDS:
                self._backoff = Backoff()
            return
        self._missed_probes += 1
        if not self.ready:
            # In a crash loop, why it ended says more.
            if self._backoff.failures <= 1 and (progress := self._tail.progress()):
                self._message = progress
        elif self._missed_probes >= _MISSED_PROBES:
            self.ready, line = False, self._tail.last()
            self._message = "running, but not ready" + (
                f"; its last log line: {line}" if line else ""
            )


def _exit_cause(code: int | None, log: LogTail) -> str:
    """Why a component ended; `code` None: it is not known."""
    if code is not None and -code in _ORDERS:
        return f"was killed by {_signal_name(-code)}"
    if code is None:
        cause = "exited"
    elif code < 0:
        cause = f"crashed with {_signal_name(-code)}"
    else:
        cause = f"exited with code {code}"
    return f"{cause}: {line}" if (line := log.error()) else f"{cause} without an error line"


def _signal_name(number: int) -> str:
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")


async def stop_child(child: Child, *, drain_seconds: float) -> None:
    """SIGTERM, then SIGKILL if the process still runs after `drain_seconds`."""
    child.terminate()
    with suppress(TimeoutError):
        async with asyncio.timeout(drain_seconds):
            await _gone(child)
            return
    logger.warning("drain timeout exceeded; killed", extra={"fields": {"pid": child.pid}})
    child.kill()
    await _gone(child)


async def _gone(child: Child) -> None:
    # Polled: the process may be another one's child, whose exit is not signalled.
    while child.is_alive():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
