"""Says on one line what the trainer does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from aurora_client._cli.shape import percent
from aurora_client._status import Training
from aurora_client._trainer import TrainerStatus


def live_trainer(status: TrainerStatus) -> str:
    """As the trainer itself says it at this moment."""
    match status.phase:
        case "WaitingForTrajectories" if status.waiting:
            doing = f"training pauses: {status.waiting}"
        case "WaitingForTrajectories" if status.new_trajectories >= status.min_new_trajectories:
            what = "trainer.budget" if status.pause_seconds > 0 else "trigger.minInterval to pass"
            doing = f"{status.new_trajectories:,} trajectories wait for {what}"
        case "WaitingForTrajectories":
            doing = (
                f"{status.new_trajectories:,} of {status.min_new_trajectories:,} trajectories to "
                "the next round"
            )
        case "Training":
            doing = f"training, step {status.step:,} of {status.steps_per_round:,}"
            if status.pause_seconds > 0:
                doing += f", which waits {_duration(status.pause_seconds)} for trainer.budget"
            elif status.eta_seconds is not None:
                doing += f", {_duration(status.eta_seconds)} left"
        case _:
            doing = status.phase.lower()
    published = _published(status.checkpoint, status.acceptance, status.withheld)
    return doing + _budget(status) + published + _skipped(status.skipped)


def _skipped(reasons: Mapping[str, int]) -> str:
    """Those that should not have come; a gateway's bare ones should."""
    found = [
        f"{count:,} {name.lower()}" for name, count in sorted(reasons.items()) if name != "Bare"
    ]
    return f"; trajectories skipped: {', '.join(found)}" if found else ""


def _budget(status: TrainerStatus) -> str:
    if status.max_share_percent in (0, 100):
        return ""
    return (
        f"; {percent(status.training_share)} of the time spent training, at most "
        f"{status.max_share_percent}%"
    )


def stored_trainer(status: Training) -> str:
    """As of the last change of phase or the last checkpoint."""
    match status.phase:
        case "WaitingForTrajectories":
            doing = f"waiting for {status.min_new_trajectories:,} new trajectories"
        case "Training":
            doing = f"training for {status.steps_per_round:,} steps"
        case _:
            doing = status.phase.lower()
    bps = status.acceptance_bps
    acceptance = None if bps is None else bps / 1e4
    published = _published(status.checkpoint, acceptance, status.withheld)
    return f"{doing} since {local_time(status.since)}{published}"


def _published(name: str, acceptance: float | None, withheld: str) -> str:
    """The last checkpoint, and why the last round published none."""
    held_out = (
        "" if acceptance is None else f", {percent(acceptance)} accepted on held-out trajectories"
    )
    said = f"; {name} published{held_out}" if name else "; nothing published yet"
    return f"{said}; the last round published nothing: {withheld}" if withheld else said


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def local_time(rfc3339: str) -> str:
    try:
        return f"{datetime.fromisoformat(rfc3339).astimezone():%H:%M:%S}"
    except ValueError:
        return rfc3339 or "–"
