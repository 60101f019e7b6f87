"""Formatting of values for a terminal."""

from __future__ import annotations

from rich.table import Table

_SHORT_HEX = 12


def short_digest(digest: str) -> str:
    """The first 12 hex digits, as in checkpoint folders' names; a dash if empty."""
    return digest.removeprefix("sha256:")[:_SHORT_HEX] or "–"


def percent(share: float) -> str:
    return f"{share:.1%}"


def points(bps: int) -> str:
    """Basis points as signed percentage points."""
    return f"{bps / 100:+.2f}"


def plain_table(*headers: str) -> Table:
    """A borderless table with dim headers."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header)
    return table
