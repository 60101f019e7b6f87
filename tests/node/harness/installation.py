"""A user's values and manifest to install the chart and deploy a model on this node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from harness import place
from harness.host_folder import mounts, volumes
from harness.model import Models

CHART = place.REPOSITORY / "deploy/helm/aurora"
_EXAMPLE = place.REPOSITORY / "examples/kubernetes-quickstart.yaml"
ANOTHER_IMAGE = "aurora-inference:another"
_VLLM_IMAGE = "vllm/vllm-openai:v0.32.0"
COMPONENTS = ("inference", "buffer", "trainer")
_CONTAINERS = {"inference": ("inference",), "buffer": ("buffer", "redis"), "trainer": ("trainer",)}
_VLLM_ARGUMENTS = ["--enforce-eager", "--max-num-seqs=16", "--max-num-batched-tokens=512"]
# Every pod and the cluster itself share two cores.
_ONE_THREAD = [{"name": "OMP_NUM_THREADS", "value": "1"}]


def images() -> list[str]:
    """The images of `make images`, a second one of inference to upgrade to, and vLLM's."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    made = [f"aurora-{component}:{version}" for component in ("operator", *COMPONENTS)]
    ours = [f"docker.io/library/{name}" for name in (*made, ANOTHER_IMAGE)]
    return [*ours, f"docker.io/{_VLLM_IMAGE}"]


def chart_values(folders: Mapping[str, Path], namespaces: Sequence[str]) -> dict[str, Any]:
    """The chart's values; the machine provides what the image lacks."""
    return {
        "watchNamespaces": list(namespaces),
        "volumes": volumes(folders),
        "volumeMounts": mounts(folders),
    }


def deployment(
    namespace: str, replicas: int, models: Models, folders: Mapping[str, Path]
) -> dict[str, Any]:
    """The quick start's AuroraDeployment, which learns and judges as fast as tiny models allow."""
    result: dict[str, Any] = yaml.safe_load(_EXAMPLE.read_text())
    result["metadata"]["namespace"] = namespace
    spec = result["spec"]
    spec["replicas"] = replicas
    spec["target"]["dtype"] = models.dtype
    spec["draft"] = {
        "initialCheckpoint": {"uri": "pvc://models/draft", "digest": models.draft_digest}
    }
    spec["trainer"] = {
        "trigger": {"minNewTrajectories": 48, "minInterval": "1s"},
        "objective": "ForwardKL",
        "hyperparameters": {"learningRate": "2e-3", "batchSize": 16, "stepsPerRound": 40},
    }
    spec["rollout"]["analysis"] = {"alpha": "0.05", "minRequests": 24, "maxDuration": "2m"}
    spec["security"] = {"authSecretRef": {"name": "chat-tokens"}}
    spec["inference"] = {"maxContextTokens": 256}
    for component in COMPONENTS:
        spec.setdefault(component, {})["podTemplate"] = _pod_template(component, folders)
    return result


def vllm_deployment(
    namespace: str, models: Models, folders: Mapping[str, Path], *, vllm: Path
) -> dict[str, Any]:
    """The same behind a stock vLLM, whose environment for CPUs is in `vllm`."""
    result = _behind_vllm(namespace, models, folders)
    spec = result["spec"]
    spec["engine"] = {"type": "vllm", "args": _VLLM_ARGUMENTS}
    spec["draft"]["speculationLength"] = {"max": 4}
    ours = {"volumeMounts": mounts(folders), "env": _ONE_THREAD}
    all_folders = {**folders, "vllm": vllm}
    engine = {"name": "vllm", "volumeMounts": mounts(all_folders), "env": _vllm_environment(vllm)}
    spec["inference"]["podTemplate"] = {
        "spec": {
            "initContainers": [{"name": "prepare", **ours}, {"name": "inference", **ours}],
            "containers": [engine],
            "volumes": volumes(all_folders),
        }
    }
    return result


def attached_deployment(
    namespace: str, models: Models, folders: Mapping[str, Path], attach: Mapping[str, Any]
) -> dict[str, Any]:
    """The same in front of a vLLM that others own."""
    result = _behind_vllm(namespace, models, folders)
    result["spec"]["engine"] = {"type": "vllm", "attach": dict(attach)}
    # vLLM's own keys are the clients'.
    del result["spec"]["security"], result["spec"]["replicas"]
    return result


def own_vllm(
    name: str, namespace: str, folders: Mapping[str, Path], *, vllm: Path
) -> dict[str, Any]:
    """A Deployment as a team may have it: a stock vLLM with a draft, and nothing of Aurora's.

    `folders`: those that provide what its image lacks.
    """
    folders = {**folders, "vllm": vllm}
    speculation = {
        "method": "draft_model",
        "model": "/models/draft",
        "num_speculative_tokens": 4,
    }
    container = {
        "name": "serve",
        "image": _VLLM_IMAGE,
        "command": ["vllm", "serve", "/models/target"],
        "args": [
            *("--served-model-name", name, "--dtype", "float32", *_VLLM_ARGUMENTS),
            *("--max-model-len", "256", "--speculative-config", json.dumps(speculation)),
        ],
        "ports": [{"containerPort": 8000}],
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "USER", "value": "vllm"},
            *_vllm_environment(vllm),
        ],
        "volumeMounts": [
            *mounts(folders),
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            *volumes(folders),
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _behind_vllm(namespace: str, models: Models, folders: Mapping[str, Path]) -> dict[str, Any]:
    result = deployment(namespace, 1, models, folders)
    spec = result["spec"]
    # A worker of vLLM's wheel for CPUs dies on some processors with bfloat16.
    spec["target"]["dtype"] = "float32"
    spec["rollout"] = {
        "steps": [{"weightPercent": 50}],
        "analysis": {"alpha": "0.05", "minRequests": 40, "maxDuration": "5m"},
        "guardrails": [],
    }
    return result


def _vllm_environment(vllm: Path) -> list[dict[str, str]]:
    environment = {
        "PATH": f"{vllm}/bin:/usr/bin",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return [{"name": name, "value": value} for name, value in environment.items()]


def _pod_template(component: str, folders: Mapping[str, Path]) -> dict[str, Any]:
    containers = [
        {"name": name, "volumeMounts": mounts(folders), "env": _ONE_THREAD}
        for name in _CONTAINERS[component]
    ]
    return {"spec": {"containers": containers, "volumes": volumes(folders)}}
