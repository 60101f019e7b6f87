"""Renders the rollouts of a deployment as a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from aurora_client._cli.past import ENDED
from aurora_client._cli.shape import plain_table, points, short_digest
from aurora_client._status import PastRollout

OUTCOME_STYLES = {
    "Promoted": "green",
    "RolledBack": "red",
    "Inconclusive": "yellow",
    "WouldPromote": "green",
    "WouldRollBack": "red",
}


def rollouts_table(found: Sequence[PastRollout]) -> Table:
    """Newest first, as in the status."""
    table = plain_table("rollout", "ended", "candidate", "digest", "verdict", "reason")
    table.add_column("saved (95%)")
    table.add_column("acceptance (95%)")
    table.add_column("replayed", justify="right")
    table.add_column("live", justify="right")
    table.add_column("took", justify="right")
    for past in found:
        saved = "–" if past.saved_bps is None else f"{points(past.saved_bps)}%"
        measured = past.requests or past.effect_bps
        accepted = points(past.effect_bps) if measured else "–"
        table.add_row(
            past.id,
            local_moment(past.at) if past.outcome in ENDED else "in progress",
            past.checkpoint or "–",
            short_digest(past.digest),
            Text(past.outcome, style=OUTCOME_STYLES.get(past.outcome, "cyan")),
            past.reason or "–",
            saved + _between(past.saved_ci_bps),
            accepted + _between(past.effect_ci_bps),
            "–" if past.replayed is None else f"{past.replayed:,}",
            f"{past.requests:,}",
            duration(past) or "–",
        )
    return table


def duration(past: PastRollout) -> str:
    """How long it took, or has taken so far; empty if it is not known when it began."""
    try:
        began = datetime.fromisoformat(past.started_at)
        ended = datetime.fromisoformat(past.at) if past.at else datetime.now(UTC)
        return _lasted((ended - began).total_seconds())
    except ValueError:
        return ""


def local_moment(rfc3339: str) -> str:
    """A day and time in the local zone."""
    try:
        return f"{datetime.fromisoformat(rfc3339).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return rfc3339 or "–"


def _lasted(seconds: float) -> str:
    whole = max(round(seconds), 0)
    if whole < 120:
        return f"{whole}s"
    if whole < 7200:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def _between(bounds: tuple[int, int] | None) -> str:
    return "" if bounds is None else f" ({points(bounds[0])} to {points(bounds[1])})"
