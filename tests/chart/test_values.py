"""The chart's values: linted, documented, used, in the schema; wrong ones refused by path."""

import itertools
import json
import re

import pytest
import yaml


def leaves(values, path=()):
    """The path of every leaf value."""
    for name, value in values.items():
        if isinstance(value, dict) and value and (*path, name) != ("resources",):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def test_passes_the_strict_lint(call_helm, tmp_path):
    result = call_helm(["lint", "--strict"], {}, tmp_path)

    assert result.returncode == 0, result.stdout


def test_every_value_is_documented(chart):
    lines = (chart / "values.yaml").read_text().splitlines()
    silent = [
        line
        for before, line in itertools.pairwise(lines)
        if re.match(r" *\w+:( \S|$)", line)
        and not before.strip().startswith("#")
        # Parents of documented values, and an image's self-explanatory repository.
        and not re.match(r" *(\w+:$|repository: )", line)
        and "cpu:" not in line
        and not line.startswith("  limits:")
    ]

    assert silent == []


def test_every_value_is_used(chart):
    values = yaml.safe_load((chart / "values.yaml").read_text())
    text = "".join(path.read_text() for path in (chart / "templates").rglob("*") if path.is_file())
    unused = [
        path
        for path in leaves(values)
        if f".Values.{'.'.join(path)}" not in text and not _is_image(path)
    ]
    # Keys of user-defined maps.
    assert unused == [
        ("nodeSelector", "kubernetes.io/os"),
        ("dashboards", "labels", "grafana_dashboard"),
    ]


def _is_image(path):
    return path[0] == "images" and len(path) == 3


def test_the_schema_knows_exactly_the_values(chart):
    schema = json.loads((chart / "values.schema.json").read_text())

    def known(node):
        if "$ref" in node:
            return known(schema["definitions"][node["$ref"].split("/")[-1]])
        return {name: known(each) for name, each in node.get("properties", {}).items()}

    def given(node):
        return {name: given(each) if isinstance(each, dict) else {} for name, each in node.items()}

    values = given(yaml.safe_load((chart / "values.yaml").read_text()))
    expected = known(schema)
    # Helm passes `global` to every chart; the maps below have user-defined keys.
    expected.pop("global")
    values["nodeSelector"] = values["dashboards"]["labels"] = {}
    values["resources"] = {"limits": {}, "requests": {}}
    expected["affinity"] = {}
    assert values == expected


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"replicas": 2}, "replicas"),
        ({"replicaCount": "2"}, "replicaCount"),
        ({"replicaCount": -1}, "replicaCount"),
        ({"replicaCount": 11}, "replicaCount"),
        ({"nameOverride": "Aurora"}, "nameOverride"),
        ({"fullnameOverride": "a" * 51}, "fullnameOverride"),
        ({"commonLabels": {"team": "a b"}}, "commonLabels/team"),
        ({"commonLabels": {"team": 1}}, "commonLabels/team"),
        ({"watchNamespaces": "serving"}, "watchNamespaces"),
        ({"watchNamespaces": ["Serving"]}, "watchNamespaces/0"),
        ({"watchNamespaces": ["a", "a"]}, "watchNamespaces"),
        ({"watchNamespaces": ["a", "*"]}, "watchNamespaces"),
        ({"tenancy": {"podTemplate": "restricted"}}, "tenancy/podTemplate"),
        ({"tenancy": {"reservedLabels": ["a b"]}}, "tenancy/reservedLabels/0"),
        ({"tenancy": {"reservedAnnotations": "a"}}, "tenancy/reservedAnnotations"),
        ({"tenancy": {"limitOperator": "no"}}, "tenancy/limitOperator"),
        ({"crds": {"enable": True}}, "enable"),
        ({"crds": {"keep": "yes"}}, "crds/keep"),
        ({"images": {"pullPolicy": "Sometimes"}}, "images/pullPolicy"),
        ({"images": {"pullSecrets": ["registry"]}}, "images/pullSecrets/0"),
        ({"images": {"operator": {"digest": "sha256:1"}}}, "images/operator/digest"),
        ({"images": {"operator": {"tag": "a/b"}}}, "images/operator/tag"),
        ({"images": {"operator": {"repository": ""}}}, "images/operator/repository"),
        ({"quickstart": {"namespace": "Default"}}, "quickstart/namespace"),
        ({"images": {"gateway": {"repository": "a"}}}, "gateway"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"resources": {"limits": {"memory": "lots"}}}, "resources/limits/memory"),
        ({"commonLabels": {"app.kubernetes.io/instance": "a"}}, "commonLabels"),
        ({"commonLabels": {"helm.sh/chart": "a"}}, "commonLabels"),
        ({"podLabels": {"app.kubernetes.io/name": "a"}}, "podLabels"),
        ({"podMonitor": {"labels": {"app.kubernetes.io/component": "a"}}}, "podMonitor/labels"),
        ({"podAnnotations": {"a": True}}, "podAnnotations/a"),
        ({"volumes": [{"emptyDir": {}}]}, "volumes/0"),
        ({"affinity": {"nodes": {}}}, "nodes"),
        ({"tolerations": {"key": "a"}}, "tolerations"),
        ({"serviceAccount": {"create": 1}}, "serviceAccount/create"),
        ({"rbac": {"secrets": True}}, "secrets"),
        (
            {"networkPolicy": {"apiServerAddresses": ["10.0.0.1"]}},
            "networkPolicy/apiServerAddresses/0",
        ),
        ({"networkPolicy": {"apiServerPorts": []}}, "networkPolicy/apiServerPorts"),
        ({"networkPolicy": {"apiServerPorts": [70000]}}, "networkPolicy/apiServerPorts/0"),
        ({"serviceMonitor": {"interval": 30}}, "serviceMonitor/interval"),
        ({"podMonitor": {"interval": "soon"}}, "podMonitor/interval"),
        ({"dashboards": {"enabled": None, "folder": "a"}}, "folder"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(call_helm, tmp_path, values, path):
    result = call_helm(["template", "aurora"], values, tmp_path)

    assert result.returncode != 0
    assert "don't meet the specifications of the schema" in result.stderr
    assert f"/{path}" in result.stderr or f"'{path}'" in result.stderr, result.stderr


def test_a_label_that_is_set_twice_is_written_once(call_helm, tmp_path):
    values = {"commonLabels": {"team": "all", "tier": "x"}, "podLabels": {"team": "pods"}}
    result = call_helm(
        ["template", "aurora", "--show-only=templates/deployment.yaml"], values, tmp_path
    )

    assert result.returncode == 0, result.stderr
    metadata, template = result.stdout.split("  template:")
    assert (metadata.count("team: all"), template.count("team: ")) == (1, 1)
    assert template.count("team: pods") == template.count("tier: x") == 1
