"""Shows training progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# One plain line for each tenth of the work.
_PARTS = 10


class TrainingProgress:
    """Shows the stage, the fraction done and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._title = ""
        self._planned = 1.0
        self._done = 0.0
        self._printed = 0
        self._started = 0.0

    @contextmanager
    def shown(self, planned_work: float) -> Iterator[None]:
        """Shows progress through the planned work while the block runs."""
        self._planned, self._done, self._printed = planned_work, 0.0, 0
        self._started = time.monotonic()
        if not self._console.is_terminal:
            yield
            return
        with Progress(
            TextColumn("training the demo's models: {task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        ) as bar:
            self._bar, self._task = bar, bar.add_task(self._title, total=planned_work)
            yield
            self._bar = None

    def stage(self, title: str) -> None:
        """Sets the title of the current stage."""
        self._title = title
        if self._bar is not None:
            self._bar.update(self._task, description=title)

    def advance(self, work: float) -> None:
        """Adds to the work done."""
        self._done += work
        if self._bar is not None:
            self._bar.advance(self._task, work)
            return
        part = int(_PARTS * self._done / self._planned + 1e-6)
        if part > self._printed:
            self._printed = part
            elapsed = time.monotonic() - self._started
            left = elapsed * (self._planned / self._done - 1)
            self._console.print(
                f"training the demo's models: {self._title}, {part / _PARTS:.0%}, "
                f"about {max(left, 0):.0f} s left",
                highlight=False,
            )
