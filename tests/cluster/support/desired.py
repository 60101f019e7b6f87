"""Deployments of many kinds, and their desired objects."""

from __future__ import annotations

import json
from typing import Any

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects import desired_objects
from aurora_operator.domain.objects.attached import EnginePod
from aurora_operator.domain.objects.setting import Setting

SETTING = Setting(
    inference_image="inference:1",
    buffer_image="buffer:1",
    trainer_image="trainer:1",
    operator_namespace="aurora-system",
    operator_labels={"app.kubernetes.io/component": "operator"},
    owner_uid="uid-1",
)

_SECRET_KEYS = {
    "urlSecretRef": {"name": "redis", "key": "url"},
    "caSecretRef": {"name": "redis", "key": "ca"},
}
# Template content that the API server normalises or drops.
_TEMPLATE = {
    "metadata": {"labels": {"team": "x"}, "annotations": {"note": ""}},
    "spec": {
        "hostNetwork": False,
        "nodeSelector": {},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "imagePullSecrets": [{"name": "registry"}],
        "topologySpreadConstraints": [
            {
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "maxSkew": 1,
            }
        ],
        "initContainers": [
            {
                "name": "fetch",
                "image": "fetch:1",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}},
            {"name": "more", "configMap": {"name": "more", "optional": False}},
        ],
        "containers": [
            {
                "name": "inference",
                "env": [
                    {"name": "EMPTY", "value": ""},
                    {"name": "HOME", "value": "/tmp/home"},
                    {
                        "name": "CORES",
                        "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": 1}},
                    },
                ],
                "resources": {"limits": {"cpu": 2, "ephemeral-storage": "1e9"}},
                "volumeMounts": [{"name": "more", "mountPath": "/more", "readOnly": False}],
            },
            {
                "name": "sidecar",
                "image": "sidecar:1",
                "resources": {"requests": {"cpu": "0.5", "memory": "0.5Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            },
        ],
    },
}
# Parts of a spec by what they exercise; together, all that changes an object.
SPECS: dict[str, dict[str, Any]] = {
    "minimal": {},
    "other claims": {
        "draft": {"initialCheckpoint": {"uri": "pvc://drafts/first"}},
        "buffer": {"embedded": {"storage": "0.5Gi", "storageClassName": "fast"}},
    },
    "external Redis": {"buffer": {"external": _SECRET_KEYS}},
    "autoscaled": {"inference": {"autoscaling": {"maxReplicas": 5}}, "trainer": {"suspend": True}},
    "no replicas": {"replicas": 0, "security": {"tls": {"mode": "Disabled"}}},
    "tokens": {"security": {"authSecretRef": {"name": "tokens"}}},
    "resources": {
        component: {"resources": {"limits": {"cpu": "1.5", "nvidia.com/gpu": "1"},
                                  "requests": {"cpu": "0.5", "memory": "1024Mi"}}}
        for component in ("inference", "trainer")
    },
    "two IP families": {"network": {"ipFamilyPolicy": "PreferDualStack"}},
    "several trainers": {
        "trainer": {"replicas": 3},
        "security": {"trainerTraffic": "Plaintext"},
    },
    "template": {"inference": {"podTemplate": _TEMPLATE}},
    "vllm": {
        "draft": {"initialCheckpoint": {"uri": "pvc://drafts/first"}},
        "engine": {
            "type": "vllm",
            "args": ["--tensor-parallel-size=2", "--gpu-memory-utilization", "0.8"],
            "speculative": {
                "perBatchSize": [{"batchSize": 1, "tokens": 4}, {"batchSize": 9, "tokens": 0}]
            },
            "resources": {"limits": {"nvidia.com/gpu": 2}},
        },
        "security": {"authSecretRef": {"name": "tokens"}},
    },
    "head": {
        "draft": {"kind": "Eagle3", "initialCheckpoint": {"uri": "pvc://drafts/head"}},
        "engine": {"type": "vllm"},
        "trainer": {"targets": "Recompute"},
    },
    "attached": {
        "draft": {"initialCheckpoint": {"uri": "pvc://drafts/first"}},
        "engine": {
            "type": "vllm",
            "attach": {
                "selector": {"app": "vllm", "model": "qwen"},
                "port": 8100,
                "keySecretRef": {"name": "vllm", "key": "api-key"},
            },
        },
    },
}  # fmt: skip
# Apart from these: not every cluster has LeaderWorkerSets.
NODES: dict[str, Any] = {
    "draft": {"initialCheckpoint": {"uri": "pvc://drafts/first"}},
    "engine": {"type": "vllm", "nodes": 2, "args": ["--tensor-parallel-size=2"]},
}
# The pods that "attached" finds.
ENGINES = (EnginePod("vllm-0", "uid-a", "10.0.0.7"), EnginePod("vllm-1", "uid-b", "fd00::7"))


def deployment(name: str = "chat", namespace: str = "serving", **spec: Any) -> AuroraDeployment:
    """The deployment of a small manifest with the given fields of its spec."""
    content = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "target": {"uri": "pvc://targets/qwen"},
            "modelStore": {"pvc": {"claimName": "models"}},
            **({} if "buffer" in spec else {"buffer": {"embedded": {}}}),
            **spec,
        },
    }
    return parse_manifest(json.dumps(content), "test")


def objects(wanted: AuroraDeployment) -> dict[tuple[str, str], dict[str, Any]]:
    """The deployment's objects by kind and name."""
    found = desired_objects(wanted, SETTING, ENGINES)
    return {(made["kind"], made["metadata"]["name"]): made for made in found}
