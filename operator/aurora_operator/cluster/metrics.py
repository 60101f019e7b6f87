"""The operator's own metrics; deployments' names are no labels, since there may be many."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """One process's metrics, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "aurora_operator_reconcile_seconds",
            "Duration of one reconcile of a deployment.",
            ["worker", "result"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.writes = Counter(
            "aurora_operator_api_writes",
            "Writes accepted by the API server.",
            ["verb"],
            registry=self.registry,
        )
        self.events_dropped = Counter(
            "aurora_operator_events_dropped",
            "Kubernetes Events that could not be written.",
            registry=self.registry,
        )
        self._queue = Gauge(
            "aurora_operator_queue_depth",
            "Deployments waiting to be reconciled, due or not.",
            ["worker"],
            registry=self.registry,
        )
        self.leader = Gauge(
            "aurora_operator_leader",
            "1 while this process holds the lease.",
            registry=self.registry,
        )
        self._deployments = Gauge(
            "aurora_operator_deployments",
            "AuroraDeployments known to the operator.",
            registry=self.registry,
        )

    def follow_queue(self, worker: str, depth: Callable[[], int]) -> None:
        self._queue.labels(worker).set_function(depth)

    def follow_deployments(self, count: Callable[[], int]) -> None:
        self._deployments.set_function(count)

    def exposition(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
