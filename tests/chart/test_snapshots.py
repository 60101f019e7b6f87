"""Snapshots of the rendered chart, for reviewers.

`AURORA_UPDATE_SNAPSHOTS=1 pytest tests/chart/test_snapshots.py` rewrites them.
"""

import os
from pathlib import Path

import pytest
import yaml

SNAPSHOTS = Path(__file__).parent / "snapshots"
# The CRD is generated; `make check` compares it to its source. The policy is long: it is in one.
_BASE = {"crds": {"enabled": False}, "tenancy": {"podTemplate": "Unrestricted"}}
_DIGEST = "sha256:" + "0" * 64
CASES = {
    "default": {"tenancy": {}},
    "namespaced": {"watchNamespaces": ["serving", "research"]},
    "everywhere": {
        "watchNamespaces": ["*"],
        "networkPolicy": {"apiServerAddresses": ["10.96.0.1/32", "fd00::1/128"]},
    },
    "bare": {
        "networkPolicy": {"enabled": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "tenancy": {"podTemplate": "Unrestricted", "limitOperator": False},
    },
    "everything": {
        "fullnameOverride": "learning",
        "commonLabels": {"team": "inference"},
        "images": {
            "registry": "registry.example.com/team",
            "pullPolicy": "Always",
            "pullSecrets": [{"name": "registry"}],
            "operator": {"digest": _DIGEST},
            "buffer": {"tag": "1.2.3"},
        },
        "quickstart": {"namespace": "default", "storageClassName": "fast"},
        "notifications": {"urlSecret": {"name": "webhook"}},
        "replicaCount": 2,
        "podLabels": {"zone": "a"},
        "podAnnotations": {"note": "b"},
        "volumes": [{"name": "trust", "configMap": {"name": "trust"}}],
        "volumeMounts": [{"name": "trust", "mountPath": "/trust"}],
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
        "serviceAccount": {"annotations": {"owner": "c"}},
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}]},
        "serviceMonitor": {"labels": {"release": "prometheus"}},
        "podMonitor": {"labels": {"release": "prometheus"}},
        "prometheusRule": {"labels": {"release": "prometheus"}},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_renders_as_reviewed(render, name):
    rendered = render({**_BASE, **CASES[name]}, monitors=name == "everything")
    path = SNAPSHOTS / f"{name}.yaml"
    if os.environ.get("AURORA_UPDATE_SNAPSHOTS"):
        path.write_text(rendered)

    assert list(yaml.safe_load_all(rendered)) == list(yaml.safe_load_all(path.read_text()))
