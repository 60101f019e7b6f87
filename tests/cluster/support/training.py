"""A trainer's loop with everything around it that a test looks at."""

from __future__ import annotations

import threading

from aurora.buffer.v1 import buffer_pb2
from aurora_common.lasting import LastingFailures
from aurora_trainer.assembly import assembled_trainer
from aurora_trainer.control.budget import Budget
from aurora_trainer.loop import Schedule, TrainingLoop
from aurora_trainer.progress import Trigger
from aurora_trainer.settings import TrainSettings

SCHEDULE = Schedule(Trigger(10, 0.0), steps_per_round=3, save_entries=1000, save_seconds=100.0)


class FakeClock:
    now_seconds = 1000.0

    def monotonic(self) -> float:
        return self.now_seconds

    def unix_ms(self) -> int:
        return int(self.now_seconds * 1000)


class FakeSource:
    """Delivers a test's entries all at once."""

    def __init__(self) -> None:
        self.entries: list[buffer_pb2.Entry] = []

    def take(self, *, wait_seconds: float) -> list[buffer_pb2.Entry]:
        taken, self.entries = self.entries, []
        return taken


class Listener:
    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.announcements = 0

    def durable(self, ids) -> None:
        self.acknowledged += ids

    def published(self) -> None:
        self.announcements += 1


class Bench:
    """A loop with everything around it that a test looks at."""

    def __init__(
        self,
        settings: TrainSettings,
        schedule: Schedule = SCHEDULE,
        *,
        max_share_percent: int = 100,
    ) -> None:
        self.trainer = assembled_trainer(settings)
        self.source, self.listener, self.clock = FakeSource(), Listener(), FakeClock()
        self.failures = LastingFailures(clock=self.clock.monotonic)
        self.loop = TrainingLoop(
            self.trainer,
            schedule,
            source=self.source,
            listener=self.listener,
            clock=self.clock,
            failures=self.failures,
            budget=Budget(max_share_percent, began_at=self.clock.monotonic()),
        )

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.loop.turn(threading.Event())

    def finish(self) -> None:
        """What SIGTERM does."""
        stopped = threading.Event()
        stopped.set()
        self.loop.run(stopped)
