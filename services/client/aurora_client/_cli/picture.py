"""Small pictures out of characters: bars, sparklines, intervals."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

BAR_CELLS = 24
_INTERVAL_CELLS = 41
_BLOCKS = "▁▂▃▄▅▆▇█"


def bar(share: float, style: str) -> Text:
    """How much of the way is gone; a share above 1 fills it."""
    filled = round(max(0.0, min(1.0, share)) * BAR_CELLS)
    return Text("━" * filled, style=style).append("─" * (BAR_CELLS - filled), style="dim")


def sparkline(values: Sequence[float], *, top: float, style: str) -> Text:
    """One block a value, from 0 or below to `top`, where it is full."""
    last = len(_BLOCKS) - 1
    line = Text()
    for value in values:
        share = max(0.0, value / top) if top > 0 else 0.0
        reached = share >= 1
        level = last if reached else min(int(share * last), last - 1)
        line.append(_BLOCKS[level], style=f"bold {style}" if reached else style)
    return line


def interval(estimate: float, low: float, high: float, style: str) -> Text:
    """An estimate in its interval, on an axis that has 0 in its middle."""
    widest = max(abs(low), abs(high), abs(estimate)) or 1.0
    middle = _INTERVAL_CELLS // 2

    def cell(value: float) -> int:
        return middle + round(value / widest * middle)

    cells = ["─"] * _INTERVAL_CELLS
    cells[middle] = "┼"
    first, last = cell(low), cell(high)
    for position in range(first, last + 1):
        cells[position] = "┿" if position == middle else "━"
    cells[first], cells[last] = "┝", "┥"
    cells[cell(estimate)] = "●"
    line = Text("".join(cells[:first]), style="dim")
    line.append("".join(cells[first : last + 1]), style=style)
    return line.append("".join(cells[last + 1 :]), style="dim")
