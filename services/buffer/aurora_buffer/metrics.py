"""The buffer's Prometheus metrics; none is labelled by tenant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """The buffer's counters and gauges in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.appended = self._counter("appended", "Trajectories stored.")
        self.delivered = self._counter("delivered", "Trajectories sent to subscribers.")
        self.acknowledged = self._counter("acknowledged", "Trajectories acknowledged.")
        self.deleted = self._counter("deleted", "Trajectories deleted with their tenant.")
        self.trimmed = self._counter("trimmed", "Trajectories dropped by the bounds.")
        self.trimmed_unacknowledged = self._counter(
            "trimmed_unacknowledged",
            "Times that the bounds dropped a trajectory which a group had not acknowledged.",
        )
        self.reclaimed = self._counter("reclaimed", "Entries taken over from dead consumers.")
        self.stored_bytes = Gauge(
            "aurora_buffer_bytes", "Bytes of the stored trajectories.", registry=self.registry
        )
        self.task_restarts = Counter(
            "aurora_buffer_task_restarts",
            "Times that a background task ended and was started again.",
            ["task"],
            registry=self.registry,
        )
        self.errors = Counter(
            "aurora_buffer_errors", "Calls that failed.", ["method"], registry=self.registry
        )

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(f"aurora_buffer_{name}", documentation, registry=self.registry)

    @contextmanager
    def counting_errors(self, method: str) -> Iterator[None]:
        """Counts exceptions that leave the block, except for cancellation by the caller."""
        try:
            yield
        except Exception:
            self.errors.labels(method).inc()
            raise
