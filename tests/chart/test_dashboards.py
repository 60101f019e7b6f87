"""Every dashboard query uses metrics that a component exports."""

import json
import re

import pytest

DASHBOARDS = ("serving", "loop")


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
