"""Reconciles process specs into local processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aurora_operator.domain.plan.observation import ComponentView
from aurora_operator.local.child import adopted
from aurora_operator.local.layout import Layout
from aurora_operator.local.process_spec import ProcessSpec
from aurora_operator.local.record import RecordBook
from aurora_operator.local.supervision import Supervisor, SupervisorContext, stop_child

DRAIN_SECONDS = 10.0
# Inference drains while its engine runs; producers and consumers of trajectories flush while buffer
# and Redis do.
_STOP_ORDER = (("inference", "trainer", "rank"), ("engine", "buffer"), ("redis",))


@dataclass(frozen=True, slots=True)
class ComponentDetail:
    """A component as the operator's API shows it."""

    view: ComponentView
    pid: int | None
    restarts: int
    address: str
    log_path: str
    # Another start would fail as well.
    refused: bool


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
        self._context = SupervisorContext(
            book=book,
            log_path=layout.log,
            leash=leash,
            is_ready=self.is_ready,
            on_change=on_change,
        )

    def is_ready(self, component: str) -> bool:
        supervisor = self._supervisors.get(component)
        return supervisor is not None and supervisor.ready

    async def apply(self, specs: Sequence[ProcessSpec]) -> None:
        """Runs exactly `specs`; a process whose spec is unchanged is left alone.

        Processes that an earlier operator left are adopted, or stopped if their spec changed.
        """
        desired = {spec.name: spec for spec in specs}
        running = {name: supervisor.spec.digest for name, supervisor in self._supervisors.items()}
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
        await in_stop_order(self._end, frozenset(stale))
        for name, spec in desired.items():
            if name not in self._supervisors:
                supervisor = Supervisor(spec, self._context)
                self._supervisors[name] = supervisor
                self._tasks[name] = asyncio.create_task(supervisor.run(), name=f"run {name}")

    def details(self) -> tuple[ComponentDetail, ...]:
        return tuple(
            ComponentDetail(
                view=supervisor.view,
                pid=supervisor.pid,
                restarts=supervisor.restarts,
                address=supervisor.spec.address,
                log_path=str(self._layout.log(name)),
                refused=supervisor.refused,
            )
            for name, supervisor in self._supervisors.items()
        )

    async def stop_servers(self) -> None:
        """Stops the components that use the buffer."""
        await asyncio.gather(
            *(self._end(name) for name in _of_group(self._names(), _STOP_ORDER[0]))
        )

    async def stop(self) -> None:
        """Stops every component, recorded ones included, in an order that loses no data."""
        await in_stop_order(self._end, self._names())

    def _names(self) -> frozenset[str]:
        return frozenset((*self._supervisors, *self._book.record.processes))

    async def _end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        # It exists until it has ended: its last outcomes are read meanwhile.
        supervisor = self._supervisors.get(name)
        if supervisor is not None:
            await supervisor.stop(drain_seconds=DRAIN_SECONDS)
            self._supervisors.pop(name, None)
            self._context.on_change()
        else:
            await _stop_recorded(self._book, name)


async def stop_recorded(book: RecordBook) -> None:
    """Stops the processes that an earlier operator left running."""
    names = frozenset(book.record.processes)
    await in_stop_order(lambda name: _stop_recorded(book, name), names)


async def in_stop_order(end: Callable[[str], Awaitable[None]], names: Collection[str]) -> None:
    """Calls `end` with each name, in an order that loses no data."""
    for group in _STOP_ORDER:
        await asyncio.gather(*(end(name) for name in _of_group(names, group)))


def _of_group(names: Collection[str], group: Collection[str]) -> list[str]:
    """Those whose component is in the group: `rank-1` is of `rank`."""
    return [name for name in names if name.partition("-")[0] in group]


async def _stop_recorded(book: RecordBook, name: str) -> None:
    record = book.record.processes.get(name)
    child = None if record is None else adopted(record)
    if child is not None:
        await stop_child(child, drain_seconds=DRAIN_SECONDS)
    book.remove(name)
