"""The training thread: decides what the trainer does next and retries failed writes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aurora.buffer.v1 import buffer_pb2
from aurora_common.errors import CheckpointError, StorageError
from aurora_common.lasting import LastingFailures
from aurora_trainer.control.budget import Budget
from aurora_trainer.progress import Trigger, round_is_due
from aurora_trainer.trainer import Trainer

logger = logging.getLogger(__name__)

# How long an idle loop waits for trajectories before it checks the clock and `stop` again.
_IDLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to train and when to save; saving more often leaves less pending in the buffer."""

    trigger: Trigger
    steps_per_round: int
    save_entries: int = 256
    save_seconds: float = 15.0
    first_retry_seconds: float = 1.0
    longest_retry_seconds: float = 60.0
    # At most this many entries are held unsaved: the rest wait in the buffer.
    unsaved_limit: int = 4096


class Clock(Protocol):
    """`monotonic` seconds for waiting, `unix_ms` for timestamps."""

    def monotonic(self) -> float: ...

    def unix_ms(self) -> int: ...


class Source(Protocol):
    """Where trajectories come from."""

    def take(self, *, wait_seconds: float) -> Sequence[buffer_pb2.Entry]: ...


class Listener(Protocol):
    """Notified of progress, on the training thread."""

    def durable(self, ids: Sequence[str]) -> None:
        """These entries are in the saved state and may be acknowledged."""

    def published(self) -> None:
        """A new checkpoint is in the models folder."""


class TrainingLoop:
    """Runs a Trainer until stopped."""

    def __init__(
        self,
        trainer: Trainer,
        schedule: Schedule,
        *,
        source: Source,
        listener: Listener,
        clock: Clock,
        failures: LastingFailures,
        budget: Budget,
    ) -> None:
        """`budget`: in the seconds of `clock.monotonic`."""
        self._trainer = trainer
        self._schedule = schedule
        self._source = source
        self._listener = listener
        self._clock = clock
        self._failures = failures
        self._budget = budget
        self._saved_at = clock.monotonic()
        self._retry_at = 0.0
        self._retry_seconds = 0.0

    def run(self, stop: threading.Event) -> None:
        """Runs until `stop` is set, finishes the current step, then saves."""
        while not stop.is_set():
            self.turn(stop)
        self._attempt(self._save)

    def turn(self, stop: threading.Event) -> None:
        """Takes in new entries, then does at most one step, one checkpoint and one save."""
        trainer = self._trainer
        may_train = self._budget.allows(self._clock.monotonic())
        busy = may_train and trainer.progress.phase == "Training"
        if trainer.unsaved_count < self._schedule.unsaved_limit:
            arrived = self._source.take(wait_seconds=0.0 if busy else _IDLE_SECONDS)
            durable = trainer.take_in(arrived)
            if durable:
                self._listener.durable(durable)
        elif not busy:
            stop.wait(_IDLE_SECONDS)
        # What is about to be published is written anew after a failure: it must stay the same.
        if trainer.progress.phase != "Publishing":
            trainer.take_verdicts()
        now_ms = self._clock.unix_ms()
        if may_train:
            began = self._clock.monotonic()
            if trainer.can_train and round_is_due(
                trainer.progress, self._schedule.trigger, now_ms=now_ms
            ):
                trainer.begin_round(self._schedule.steps_per_round)
            if trainer.progress.phase == "Training":
                trainer.train()
                ended = self._clock.monotonic()
                self._budget.spend(ended - began, ended)
        if self._clock.monotonic() >= self._retry_at:
            if trainer.progress.phase == "Publishing":
                self._attempt(self._publish)
            elif self._save_is_due():
                self._attempt(self._save)

    def _save_is_due(self) -> bool:
        waited = self._clock.monotonic() - self._saved_at
        unsaved = self._trainer.unsaved_count
        return (
            self._trainer.has_unsaved_verdicts
            or unsaved >= self._schedule.save_entries
            or (unsaved > 0 and waited >= self._schedule.save_seconds)
        )

    def _publish(self) -> None:
        if objection := self._trainer.objection():
            self._trainer.withhold(objection, now_ms=self._clock.unix_ms())
            self._save()
            return
        try:
            self._trainer.publish(now_ms=self._clock.unix_ms())
        except CheckpointError as error:
            logger.exception("round abandoned: its weights are not fit to be published")
            self._failures.failed("round", f"its weights are not fit to be published: {error}")
            self._trainer.abandon_round(now_ms=self._clock.unix_ms())
        else:
            self._failures.succeeded("round")
            self._listener.published()
        self._save()

    def _save(self) -> None:
        durable = self._trainer.save()
        self._saved_at = self._clock.monotonic()
        if durable:
            self._listener.durable(durable)

    def _attempt(self, effect: Callable[[], None]) -> None:
        """Runs `effect`; after a StorageError, backs off before the next attempt."""
        try:
            effect()
            self._retry_seconds = 0.0
            self._failures.succeeded("write")
        except StorageError as error:
            doubled = max(self._schedule.first_retry_seconds, 2 * self._retry_seconds)
            self._retry_seconds = min(doubled, self._schedule.longest_retry_seconds)
            self._retry_at = self._clock.monotonic() + self._retry_seconds
            self._failures.failed("write", f"checkpoints cannot be written: {error}")
            logger.error(
                "checkpoint or state write failed; will retry",
                extra={
                    "fields": {"reason": str(error), "next_attempt_seconds": self._retry_seconds}
                },
            )
