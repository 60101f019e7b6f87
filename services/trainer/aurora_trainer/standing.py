"""The trainer's status as exposed over gRPC and as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aurora_trainer.progress import Progress

_SKIP_REASONS = ("Bare", "Foreign", "Long", "Malformed", "Repeated")


@dataclass(frozen=True, slots=True)
class Standing:
    """A snapshot of a trainer; counters survive restarts.

    `replicas`: how many contributed to the last step.
    """

    progress: Progress
    optimizer_steps: int
    skipped_steps: int
    replicas: int = 1

    @property
    def eta_seconds(self) -> float | None:
        """How long the steps left will take, as long as those so far; None without any."""
        steps = self.optimizer_steps + self.skipped_steps
        if steps == 0:
            return None
        return self.progress.steps_left * self.progress.training_seconds / steps


@dataclass(frozen=True, slots=True)
class Pace:
    """The share of the time that training may take in percent, the one that it took since the
    process began, 0..1, and the seconds until the next step may begin."""

    max_share_percent: int
    share: float
    waits_seconds: float


class StandingCollector(Collector):
    """Reads the standing at each scrape, so that counters are kept only once."""

    def __init__(self, standing: Callable[[], Standing]) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        standing = self._standing()
        progress = standing.progress
        counters = (
            ("trajectories", "Trajectories taken in.", progress.trajectories),
            ("rounds", "Rounds of training that ended.", progress.rounds),
            (
                "withheld_rounds",
                "Rounds that published nothing: held-out trajectories spoke against it.",
                progress.withheld_rounds,
            ),
            ("optimizer_steps", "Steps that changed the draft.", standing.optimizer_steps),
            ("skipped_steps", "Steps without a finite gradient.", standing.skipped_steps),
            ("training_seconds", "Time spent in steps.", progress.training_seconds),
            (
                "traffic_changes",
                "Changes in the mixture of domains, or falls of acceptance in one.",
                progress.control.drifts,
            ),
        )
        for name, text, value in counters:
            yield CounterMetricFamily(f"aurora_trainer_{name}", text, value)
        skipped = CounterMetricFamily(
            "aurora_trainer_skipped_trajectories",
            "Trajectories not trained on: Malformed, Foreign (of another target), Bare (without "
            "the target's distributions), Long, or Repeated (many had the same prompt).",
            labels=["reason"],
        )
        for reason in _SKIP_REASONS:
            skipped.add_metric([reason], progress.skip_reasons.get(reason, 0))
        yield skipped
        gauges = (
            ("loss", "Loss of the last step.", progress.loss),
            ("new_trajectories", "Trajectories since the last round.", progress.new_trajectories),
            ("checkpoint_sequence", "The last published checkpoint.", progress.sequence),
            ("replicas", "Replicas whose gradients were in the last step.", standing.replicas),
            (
                "paused",
                "1 while no round begins, since the last ones cost more than they gained.",
                float(bool(progress.waiting)),
            ),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"aurora_trainer_{name}", text, value)
