"""What the operator counts of itself; names of deployments are no labels, there may be many."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "aurora_operator_reconcile_seconds",
            "How long one look at a deployment took.",
            ["worker", "result"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.writes = Counter(
            "aurora_operator_api_writes",
            "Writes that the API server took.",
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
            "Deployments that wait to be looked at, due or not.",
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
            "AuroraDeployments that are known.",
            registry=self.registry,
        )

    def follow_queue(self, worker: str, depth: Callable[[], int]) -> None:
        self._queue.labels(worker).set_function(depth)

    def follow_deployments(self, count: Callable[[], int]) -> None:
        self._deployments.set_function(count)

    def exposition(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
