"""What the judge has done, as Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class JudgeMetrics:
    """Counters of this process; a request that is read again counts again."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.judged = Counter(
            "aurora_trainer_judged_requests",
            "Recorded requests on which two drafts were compared.",
            registry=registry,
        )
        self.unjudged = Counter(
            "aurora_trainer_unjudged_requests",
            "Recorded requests that were read but cannot be judged.",
            ["reason"],
            registry=registry,
        )
        self.judging_seconds = Counter(
            "aurora_trainer_judging_seconds",
            "CPU time spent on scoring requests.",
            registry=registry,
        )
