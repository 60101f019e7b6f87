"""The trainer's phase, counters and stream position, and their transitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from aurora_common.stream_id import stream_order
from aurora_trainer.control import control as control_moves
from aurora_trainer.control.control import Control
from aurora_trainer.control.gain import Gain, Probe
from aurora_trainer.control.plateau import Plateau
from aurora_trainer.control.start import RECENT_TRAJECTORIES

_NOT_MEASURED = Probe()

Phase = Literal["WaitingForTrajectories", "Training", "Publishing"]


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a round of training begins: both conditions must hold."""

    min_new_trajectories: int
    min_interval_seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Saved together with the weights that it describes.

    `trajectories` counts those taken in, `skipped` those that were not, `skip_reasons` by reason,
    without those that an older version skipped; `first` and `position` are the oldest and newest
    stream ids taken in; `sequence` is the last published checkpoint's; `parent_digest` and
    `parent_uri` are those of the draft against which the next is judged; `loss` is the last step's.
    `withheld` says why the last round published nothing, empty if it did; `withheld_rounds` counts
    such rounds. `initial_digest` and `initial_uri` are those of the draft that training began with,
    empty if it was random. `control`: what decides whether a round is worth its time.
    """

    phase: Phase = "WaitingForTrajectories"
    trajectories: int = 0
    new_trajectories: int = 0
    skipped: int = 0
    first: str = ""
    position: str = ""
    steps_left: int = 0
    rounds: int = 0
    round_ended_at_ms: int = 0
    sequence: int = 0
    parent_digest: str = ""
    loss: float = 0.0
    training_seconds: float = 0.0
    parent_uri: str = ""
    withheld: str = ""
    withheld_rounds: int = 0
    skip_reasons: Mapping[str, int] = field(default_factory=dict)
    initial_digest: str = ""
    initial_uri: str = ""
    control: Control = field(default=Control())

    @property
    def waiting(self) -> str:
        """Why no round begins however much arrives; empty if one would."""
        idle = self.phase == "WaitingForTrajectories"
        return self.control.plateau.described(self.trajectories) if idle else ""


def with_trajectory(
    progress: Progress, stream_id: str, *, domain: str = "", acceptance: float | None = None
) -> Progress:
    """A trajectory was taken in; `acceptance`: as served by the stable draft, None if unknown."""
    first = min(progress.first or stream_id, stream_id, key=stream_order)
    return replace(
        progress,
        trajectories=progress.trajectories + 1,
        new_trajectories=progress.new_trajectories + 1,
        first=first,
        position=max(progress.position, stream_id, key=stream_order),
        control=control_moves.with_request(progress.control, domain, acceptance),
    )


def with_skipped(progress: Progress, reason: str) -> Progress:
    """A trajectory was skipped for a reason in one word."""
    reasons = {**progress.skip_reasons, reason: progress.skip_reasons.get(reason, 0) + 1}
    return replace(progress, skipped=progress.skipped + 1, skip_reasons=reasons)


def round_is_due(progress: Progress, trigger: Trigger, *, now_ms: int) -> bool:
    """Whether enough has arrived, enough time passed since the last round ended, and a round may
    gain something.

    After a change of traffic a few trajectories are enough, at any time.
    """
    elapsed_ms = now_ms - progress.round_ended_at_ms
    # A clock that was set back must not stall training.
    waited = elapsed_ms < 0 or elapsed_ms >= trigger.min_interval_seconds * 1000
    enough = trigger.min_new_trajectories
    if progress.control.changed:
        waited, enough = True, min(enough, RECENT_TRAJECTORIES)
    return (
        progress.phase == "WaitingForTrajectories"
        and progress.new_trajectories >= enough
        and waited
        and not progress.waiting
    )


def with_round_begun(progress: Progress, steps: int, before: Probe = _NOT_MEASURED) -> Progress:
    """A round of `steps` steps begins; later arrivals count for the next one."""
    control = control_moves.with_round_begun(
        progress.control, before, training_seconds=progress.training_seconds
    )
    return replace(
        progress, phase="Training", steps_left=steps, new_trajectories=0, control=control
    )


def with_gain(progress: Progress, gain: Gain | None) -> Progress:
    """The steps of a round are done, with this gain as far as it could be measured."""
    control = control_moves.with_round_ended(
        progress.control,
        gain,
        training_seconds=progress.training_seconds,
        trajectories=progress.trajectories,
    )
    return replace(progress, control=control)


def with_plateau_ended(progress: Progress) -> Progress:
    """Training may gain something again."""
    return replace(progress, control=replace(progress.control, plateau=Plateau()))


def with_step(progress: Progress, *, loss: float | None, seconds: float) -> Progress:
    """A step of the round is done; `loss` is None if it was skipped."""
    left = progress.steps_left - 1
    return replace(
        progress,
        phase="Training" if left > 0 else "Publishing",
        steps_left=left,
        loss=progress.loss if loss is None else loss,
        training_seconds=progress.training_seconds + seconds,
    )


def with_round_ended(progress: Progress, *, now_ms: int) -> Progress:
    """The round is over, published or not."""
    return replace(
        progress,
        phase="WaitingForTrajectories",
        rounds=progress.rounds + 1,
        round_ended_at_ms=now_ms,
    )


def with_checkpoint(progress: Progress, *, sequence: int) -> Progress:
    """A checkpoint was published."""
    return replace(progress, sequence=sequence, withheld="")


def with_withheld(progress: Progress, reason: str) -> Progress:
    """A round published nothing, since its rollout would be refused."""
    return replace(progress, withheld=reason, withheld_rounds=progress.withheld_rounds + 1)


def with_parent(progress: Progress, digest: str, uri: str) -> Progress:
    """The next checkpoint is judged against that draft."""
    return replace(progress, parent_digest=digest, parent_uri=uri)
