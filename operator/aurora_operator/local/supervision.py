"""Keeps one component running: starts it, asks whether it is ready, and starts it again."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aurora_common.errors import AuroraError
from aurora_common.leash import LEASH_VARIABLE
from aurora_operator.adapters.probe import GrpcProbe, RedisProbe
from aurora_operator.domain.arguments import ENVIRONMENT
from aurora_operator.domain.plan.observation import ComponentView
from aurora_operator.local.backoff import RESET_AFTER_SECONDS, Backoff
from aurora_operator.local.child import Child, adopted, gated
from aurora_operator.local.command import Command
from aurora_operator.local.last_words import last_words
from aurora_operator.local.record import ProcessRecord, RecordBook

logger = logging.getLogger(__name__)

_TURN_SECONDS = 0.1
_READY_TURN_SECONDS = 0.5
_PROBE_SECONDS = 2.0
# A busy machine may miss one question.
_MISSED_PROBES = 3


class Probe(Protocol):
    async def is_ready(self, timeout_seconds: float) -> bool: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every supervisor shares."""

    book: RecordBook
    # Where a component's output goes.
    log_path: Callable[[str], Path]
    # The leash's reading end, which every component inherits.
    leash: int | None
    is_ready: Callable[[str], bool]
    on_change: Callable[[], None]


class Supervisor:
    """One component under one command; a changed command gets a supervisor of its own."""

    def __init__(self, command: Command, surroundings: Surroundings) -> None:
        self.command = command
        self.ready = False
        self.restarts = 0
        self._around = surroundings
        self._log = surroundings.log_path(command.name)
        self._probe: Probe = (
            RedisProbe(command.address) if command.probe == "redis" else GrpcProbe(command.address)
        )
        self._child: Child | None = None
        self._backoff = Backoff()
        self._start_at = 0.0
        self._started_at = time.monotonic()
        self._missed_probes = 0
        self._message = "not started yet"
        record = surroundings.book.record.processes.get(command.name)
        if record is not None:
            self.restarts = record.restarts
            self._child = adopted(record)
            if self._child is not None:
                logger.info("adopted", extra={"fields": {"component": command.name}})

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def view(self) -> ComponentView:
        return ComponentView(
            self.command.name,
            ready=self.ready,
            failing=not self.ready and self._backoff.failures > 1,
            message="" if self.ready else self._message,
        )

    async def run(self) -> None:
        """Supervises until cancelled; the process goes on."""
        name = self.command.name
        try:
            while True:
                before = (self.view, self.pid)
                try:
                    await self._turn()
                except AuroraError as error:
                    # A full disk, for example: tried again, with the reason in the status.
                    self._ended(str(error))
                except Exception:
                    # A component nobody looks after would be worse than a turn that failed.
                    logger.exception("turn failed", extra={"fields": {"component": name}})
                if (self.view, self.pid) != before:
                    self._around.on_change()
                await asyncio.sleep(_READY_TURN_SECONDS if self.ready else _TURN_SECONDS)
        finally:
            await self._probe.close()

    async def stop(self, *, drain_seconds: float) -> None:
        """Ends the process, killing it once it drained for so long; call after `run` was ended."""
        if self._child is not None:
            await stop_child(self._child, drain_seconds=drain_seconds)
        self._child = None
        self._around.book.remove(self.command.name)

    async def _turn(self) -> None:
        if self._child is None:
            self._start_if_due()
        elif not self._child.is_alive():
            words = last_words(self._log)
            self._ended(f"ended; its last log line: {words}" if words else "ended without a word")
        else:
            await self._ask()

    def _start_if_due(self) -> None:
        awaited = [name for name in self.command.requires if not self._around.is_ready(name)]
        if awaited:
            self._message = f"waits for {', '.join(awaited)}"
        elif time.monotonic() >= self._start_at:
            self._start()

    def _start(self) -> None:
        name, leash = self.command.name, self._around.leash
        self._started_at = time.monotonic()
        environment = {**os.environ, **ENVIRONMENT, **self.command.environment}
        environment.pop(LEASH_VARIABLE, None)
        if leash is not None:
            environment[LEASH_VARIABLE] = str(leash)
        child = gated(self.command.argv, log=self._log, environment=environment, leash=leash)
        try:
            self._around.book.put(
                name,
                ProcessRecord(
                    pid=child.pid,
                    create_time=child.create_time,
                    command_digest=self.command.digest,
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
            "component": self.command.name,
            "reason": message,
            "again_in_seconds": self._backoff.delay_seconds,
        }
        logger.warning("ended", extra={"fields": fields})

    async def _ask(self) -> None:
        if await self._probe.is_ready(_PROBE_SECONDS):
            self.ready, self._missed_probes = True, 0
            if time.monotonic() - self._started_at > RESET_AFTER_SECONDS:
                self._backoff = Backoff()
            return
        self._missed_probes += 1
        if self.ready and self._missed_probes >= _MISSED_PROBES:
            self.ready, self._message = False, "runs, but does not say that it is ready"


async def stop_child(child: Child, *, drain_seconds: float) -> None:
    """SIGTERM, then SIGKILL for a process that is still there after `drain_seconds`."""
    child.terminate()
    with suppress(TimeoutError):
        async with asyncio.timeout(drain_seconds):
            await _gone(child)
            return
    logger.warning("killed after its drain time", extra={"fields": {"pid": child.pid}})
    child.kill()
    await _gone(child)


async def _gone(child: Child) -> None:
    # Its end makes no event: the process may be another one's child.
    while child.is_alive():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
