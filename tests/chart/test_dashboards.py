"""Every dashboard query uses metrics that a component exports."""

import json
import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aurora_buffer.metrics import Metrics as BufferMetrics
from aurora_inference.contract import ArmCounters, DraftReference, EngineCounters, EngineStatus
from aurora_inference.serving.metrics import EngineCollector, RequestMetrics, exposition
from aurora_operator.cluster.metrics import Metrics as OperatorMetrics
from aurora_trainer.progress import Progress
from aurora_trainer.standing import Standing, StandingCollector

DASHBOARDS = ("serving", "loop")


def _inference():
    arm = ArmCounters()
    arm.observe_step(drafted=2, accepted=1, emitted=2)
    engine = EngineCollector(
        model_name="chat",
        status=EngineStatus("1", DraftReference("ckpt-1", "sha256:1"), None, "", 0, 1),
        counters=EngineCounters("1", {"stable": arm}, running=0, waiting=0),
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
    return metrics.exposition()


@pytest.fixture(scope="module")
def exported():
    """The labels of every exported series, by its name."""
    found = {}
    for text in (_inference(), _buffer(), _trainer(), _operator()):
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries(chart, name):
    dashboard = json.loads((chart / f"dashboards/{name}.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return found + [each["query"] for each in dashboard["templating"]["list"]]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_names_an_exported_metric(chart, exported, name):
    asked = {
        metric
        for query in queries(chart, name)
        for metric in re.findall(r"\b(?:aurora|vllm)[_:][a-z0-9_:]+", query)
    }

    assert asked, "no query found"
    assert asked - exported.keys() == set()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_label_is_exported_or_added_by_the_monitor(chart, exported, name):
    known = set().union(*exported.values()) | {"namespace", "pod", "deployment", "le"}
    asked = {
        label.strip()
        for query in queries(chart, name)
        for labels in re.findall(r"(?:by|on|group_left) \(([^)]*)\)", query)
        for label in labels.split(",")
    }

    assert asked - known == set()


def test_each_dashboard_is_a_config_map(chart, objects):
    made = {
        each["metadata"]["name"]: each
        for each in objects({"dashboards": {"enabled": True}})
        if each["kind"] == "ConfigMap"
    }

    assert set(made) == {f"aurora-dashboard-{name}" for name in DASHBOARDS}
    for name in DASHBOARDS:
        config = made[f"aurora-dashboard-{name}"]
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        stored = json.loads(config["data"][f"{name}.json"])
        assert stored == json.loads((chart / f"dashboards/{name}.json").read_text())
