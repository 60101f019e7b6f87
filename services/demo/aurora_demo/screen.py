"""Displays the run: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from aurora_demo.measurement import ServedBlock, ServedRequest
from aurora_demo.scenario import SIDES, PlannedBlock, Scenario, Side

_BARS = " ▁▂▃▄▅▆▇█"
_HISTORY = 48
_RECENT_REQUESTS = 16


class LiveScreen:
    """Acceptance and tokens per second of both sides, and the state of the rollout."""

    def __init__(self, scenario: Scenario, console: Console) -> None:
        self._scenario = scenario
        self._console = console
        self._phase = ""
        self._rollout = "no rollout yet"
        self._rates: dict[Side, deque[float]] = {s: deque(maxlen=_HISTORY) for s in SIDES}
        self._recent: dict[Side, deque[ServedRequest]] = {
            side: deque(maxlen=_RECENT_REQUESTS) for side in SIDES
        }
        self._speed: dict[Side, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("requests", total=scenario.requests)
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the live view while the block runs, if there is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=8, get_renderable=self._render) as live:
            self._live = live
            yield

    def begin_block(self, block: PlannedBlock, side: Side) -> None:
        title = self._scenario.phases[block.phase].title
        if title != self._phase:
            self._phase = title
            self._say(f"traffic: {title}")

    def served(self, request: ServedRequest) -> None:
        self._progress.advance(self._task)
        self._recent[request.side].append(request)
        acceptance = self._acceptance(request.side)
        if acceptance is not None:
            self._rates[request.side].append(acceptance)

    def end_block(self, block: ServedBlock) -> None:
        self._speed[block.side] = block.tokens_per_second
        acceptance = self._acceptance(block.side)
        shown = "speculation off" if acceptance is None else f"acceptance {acceptance:4.0%}"
        self._say(
            f"block {block.number + 1:2d} {block.side:<7} {shown}, "
            f"{block.tokens_per_second:4.0f} tokens/s"
        )

    def rollout(self, line: str) -> None:
        if line.split(",")[0] != self._rollout.split(",")[0]:
            self._say(f"rollout {line}")
        self._rollout = line

    def offered(self, title: str) -> None:
        self._say(f"published a draft that is {title}")

    def _acceptance(self, side: Side) -> float | None:
        drafted = sum(request.drafted_tokens for request in self._recent[side])
        if not drafted:
            return None
        return sum(request.accepted_tokens for request in self._recent[side]) / drafted

    def _say(self, line: str) -> None:
        """Prints a line unless the live view shows the same."""
        if self._live is None:
            self._console.print(
                f"{time.strftime('%H:%M:%S')} {line}", highlight=False, soft_wrap=True
            )

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        table.add_row("", "acceptance", "", "tokens/s")
        for side in reversed(SIDES):
            acceptance = self._acceptance(side)
            bars = "".join(_BARS[round(rate * (len(_BARS) - 1))] for rate in self._rates[side])
            style = "bold green" if side == "adapted" else "dim"
            table.add_row(
                Text(side, style=style),
                "off" if acceptance is None else f"{acceptance:.0%}",
                Text(bars.ljust(_HISTORY), style=style),
                f"{self._speed[side]:.0f}" if side in self._speed else "",
            )
        return Group(
            Text(f"traffic: {self._phase}", style="bold"),
            table,
            Text(f"rollout: {self._rollout}"),
            self._progress,
        )
