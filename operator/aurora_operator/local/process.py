"""Reconciles commands into local processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aurora_operator.domain.plan.observation import ComponentView
from aurora_operator.local.child import adopted
from aurora_operator.local.command import Command
from aurora_operator.local.layout import Layout
from aurora_operator.local.record import RecordBook
from aurora_operator.local.supervision import Supervisor, Surroundings, stop_child

DRAIN_SECONDS = 10.0
# Producers and consumers of trajectories flush into a buffer and a Redis that still run.
_STOP_ORDER = (("inference", "trainer"), ("buffer",), ("redis",))


@dataclass(frozen=True, slots=True)
class ComponentDetail:
    """A component as people see it."""

    view: ComponentView
    pid: int | None
    restarts: int
    address: str
    log_path: str


class ProcessRuntime:
    """The components of one deployment on this machine."""

    def __init__(
        self,
        layout: Layout,
        book: RecordBook,
        *,
        leash: int | None,
        on_change: Callable[[], None],
    ) -> None:
        self._layout = layout
        self._book = book
        self._supervisors: dict[str, Supervisor] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._around = Surroundings(
            book=book,
            log_path=layout.log,
            leash=leash,
            is_ready=self.is_ready,
            on_change=on_change,
        )

    def is_ready(self, component: str) -> bool:
        supervisor = self._supervisors.get(component)
        return supervisor is not None and supervisor.ready

    async def apply(self, commands: Sequence[Command]) -> None:
        """Runs exactly `commands`: what runs under the same command is left alone.

        Processes that an earlier operator left are adopted, or stopped where their command changed.
        """
        desired = {command.name: command for command in commands}
        running = {name: one.command.digest for name, one in self._supervisors.items()}
        left = {
            name: record.command_digest
            for name, record in self._book.record.processes.items()
            if name not in running
        }
        stale = [
            name
            for name, digest in {**running, **left}.items()
            if name not in desired or desired[name].digest != digest
        ]
        await asyncio.gather(*(self._end(name) for name in stale))
        for name, command in desired.items():
            if name not in self._supervisors:
                supervisor = Supervisor(command, self._around)
                self._supervisors[name] = supervisor
                self._tasks[name] = asyncio.create_task(supervisor.run(), name=f"run {name}")

    def details(self) -> tuple[ComponentDetail, ...]:
        return tuple(
            ComponentDetail(
                view=supervisor.view,
                pid=supervisor.pid,
                restarts=supervisor.restarts,
                address=supervisor.command.address,
                log_path=str(self._layout.log(name)),
            )
            for name, supervisor in self._supervisors.items()
        )

    async def stop(self) -> None:
        """Stops every component, recorded ones included, in an order that loses nothing."""
        await in_stop_order(self._end)

    async def _end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        supervisor = self._supervisors.pop(name, None)
        if supervisor is not None:
            await supervisor.stop(drain_seconds=DRAIN_SECONDS)
        else:
            await _stop_recorded(self._book, name)


async def stop_recorded(book: RecordBook) -> None:
    """Stops whatever an operator that is gone left running."""
    await in_stop_order(lambda name: _stop_recorded(book, name))


async def in_stop_order(end: Callable[[str], Awaitable[None]]) -> None:
    for group in _STOP_ORDER:
        await asyncio.gather(*(end(name) for name in group))


async def _stop_recorded(book: RecordBook, name: str) -> None:
    record = book.record.processes.get(name)
    child = None if record is None else adopted(record)
    if child is not None:
        await stop_child(child, drain_seconds=DRAIN_SECONDS)
    book.remove(name)
