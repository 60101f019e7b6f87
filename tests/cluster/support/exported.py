"""What the components export, as Prometheus scrapes it."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aurora_buffer.metrics import Metrics as BufferMetrics
from aurora_inference.contract import ArmCounters, DraftReference, EngineCounters, EngineStatus
from aurora_inference.serving.metrics import EngineCollector, RequestMetrics, exposition
from aurora_operator.cluster.metrics import Metrics as OperatorMetrics
from aurora_trainer.progress import Progress
from aurora_trainer.standing import Standing, StandingCollector

TRAINER = Path(__file__).parents[3] / "services/trainer/aurora_trainer/process.py"
_BODY = {
    "metadata": {"namespace": "serving", "name": "chat"},
    "spec": {},
    "status": {
        "conditions": [{"type": "Ready", "status": "False", "reason": "InferenceNotReady"}],
        "rollout": {"id": "chat-1", "state": "Pending"},
    },
}


def exported_series() -> dict[str, set[str]]:
    """The labels of every exported series, by its name."""
    found: dict[str, set[str]] = {}
    for text in (_inference(), _buffer(), _trainer(), _operator()):
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    # Made where the process starts.
    for name in re.findall(r'Counter\(\s*"(\w+)"', TRAINER.read_text()):
        found[f"{name}_total"] = {"task"}
    return found


def _inference():
    arm = ArmCounters()
    arm.observe_step(drafted=2, accepted=1)
    engine = EngineCollector(
        model_name="chat",
        status=EngineStatus("1", DraftReference("ckpt-1", "sha256:1"), None, "", 0, 1),
        counters=EngineCounters("1", {"stable": arm}, running=0, waiting=0, ngram=arm),
        trajectories=None,
    )
    return exposition(RequestMetrics("chat"), engine).content


def _buffer():
    metrics = BufferMetrics()
    metrics.errors.labels("Append").inc()
    return generate_latest(metrics.registry)


def _trainer():
    registry = CollectorRegistry()
    registry.register(StandingCollector(lambda: Standing(Progress(), 0, 0)))
    return generate_latest(registry)


def _operator():
    metrics = OperatorMetrics()
    metrics.reconcile_seconds.labels("objects", "done").observe(1)
    metrics.writes.labels("apply").inc()
    metrics.follow_queue("objects", lambda: 0)
    metrics.follow_deployments(lambda: [_BODY])
    return metrics.exposition()
