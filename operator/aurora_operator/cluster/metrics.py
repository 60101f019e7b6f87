"""The operator's own metrics; deployments are named only where something needs a look."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aurora_operator.domain.rollout.state import Ended, State
from aurora_operator.domain.status.deployment import Status

Json = dict[str, Any]

_LIVE = {state.__name__ for state in get_args(State) if state not in get_args(Ended)}
_RESULTS = {True: "delivered", False: "failed"}
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
        self._rollouts = Counter(
            "aurora_operator_rollouts",
            "Rollouts that ended, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        # Present from the start, so that the first one is an increase.
        for outcome in get_args(Ended):
            self._rollouts.labels(outcome.__name__)

        self._notifications = Counter(
            "aurora_operator_notifications",
            "Attempts to send a verdict to the webhook.",
            ["result"],
            registry=self.registry,
        )
        for result in _RESULTS.values():
            self._notifications.labels(result)

    def count_notification(self, delivered: bool) -> None:
        """Counts an attempt to send a verdict."""
        self._notifications.labels(_RESULTS[delivered]).inc()

    def follow_queue(self, worker: str, depth: Callable[[], int]) -> None:
        self._queue.labels(worker).set_function(depth)

    def follow_deployments(self, bodies: Callable[[], Iterable[Json]]) -> None:
        self.registry.register(_Deployments(bodies))

    def count_verdicts(self, before: Status, after: Status) -> None:
        """Counts the rollouts that ended between two statuses of a deployment."""
        known = {verdict.id for verdict in before.history}
        for verdict in after.history:
            if verdict.id not in known:
                self._rollouts.labels(verdict.outcome).inc()

    def exposition(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class _Deployments(Collector):
    """What the statuses of all deployments say at each scrape."""

    def __init__(self, bodies: Callable[[], Iterable[Json]]) -> None:
        self._bodies = bodies

    def collect(self) -> Iterator[Metric]:
        count = 0
        conditions: Tally[tuple[str, str, str]] = Tally()
        names = ["deployment_namespace", "deployment"]
        problems = GaugeMetricFamily(
            "aurora_operator_deployment_problem",
            "1 for each deployment that is not ready or is degraded, by its reason.",
            labels=[*names, "condition", "reason"],
        )
        rollouts = GaugeMetricFamily(
            "aurora_operator_deployment_rollout",
            "1 for each rollout in progress that is not paused.",
            labels=[*names, "rollout", "state"],
        )
        for body in self._bodies():
            count += 1
            key = [body["metadata"]["namespace"], body["metadata"]["name"]]
            status = body.get("status") or {}
            for condition in status.get("conditions", ()):
                kind, reason = condition["type"], condition.get("reason", "")
                conditions[kind, condition["status"], reason] += 1
                if (kind, condition["status"]) in (("Ready", "False"), ("Degraded", "True")):
                    problems.add_metric([*key, kind, reason], 1)
            rollout = status.get("rollout") or {}
            if rollout.get("state") in _LIVE and not _is_paused(body):
                rollouts.add_metric([*key, rollout["id"], rollout["state"]], 1)
        yield GaugeMetricFamily(
            "aurora_operator_deployments", "AuroraDeployments known to the operator.", value=count
        )
        totals = GaugeMetricFamily(
            "aurora_operator_conditions",
            "AuroraDeployments by condition.",
            labels=["condition", "status", "reason"],
        )
        for labels, number in conditions.items():
            totals.add_metric(labels, number)
        yield from (totals, problems, rollouts)


def _is_paused(body: Json) -> bool:
    spec = body["spec"]
    by_manifest = spec.get("rollout", {}).get("paused", False) or spec.get("suspend", False)
    return bool(by_manifest or body["status"].get("paused", False))
