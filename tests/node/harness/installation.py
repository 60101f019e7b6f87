"""A user's values and manifest to install the chart and deploy a model on this node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from harness import place, registry
from harness.host_folder import claimed, mounts, volumes
from harness.image_build import COMPONENTS
from harness.model import Models

CHART = place.REPOSITORY / "deploy/helm/aurora"
_EXAMPLE = place.REPOSITORY / "examples/kubernetes-quickstart.yaml"
PULL_SECRET = "registry"
FROM_REGISTRY = f"{place.REGISTRY}/{registry.NAMESPACE}"
ANOTHER_IMAGE = "aurora-inference:another"
_VLLM_IMAGE = "vllm/vllm-openai:v0.32.0"
# Their images hold no Python: volumes bring the machine's.
_EMPTY = ("inference", "trainer")
_VLLM_ARGUMENTS = ["--enforce-eager", "--max-num-seqs=16", "--max-num-batched-tokens=512"]
# Every pod and the cluster itself share two cores.
_ONE_THREAD = [{"name": "OMP_NUM_THREADS", "value": "1"}]


def images() -> list[str]:
    """Those that are on the node from the beginning: of inference, a second one to upgrade to, of
    the trainer, and vLLM's. The others are pulled from the registry.
    """
    made = [f"aurora-{component}:{_version()}" for component in _EMPTY]
    ours = [f"docker.io/library/{name}" for name in (*made, ANOTHER_IMAGE)]
    return [*ours, *(f"{FROM_REGISTRY}/{name}" for name in made), f"docker.io/{_VLLM_IMAGE}"]


def chart_values(namespaces: Sequence[str]) -> dict[str, Any]:
    """The chart's values: all images from the node's private registry, those built by digest."""
    images: dict[str, Any] = {"registry": FROM_REGISTRY, "pullSecrets": [{"name": PULL_SECRET}]}
    for component in COMPONENTS:
        images[component] = {"digest": digest(component)}
    return {"watchNamespaces": list(namespaces), "images": images}


def digest(component: str) -> str:
    """The digest of a component's image in the registry."""
    return registry.digest(place.REGISTRY, f"aurora-{component}", _version())


def _version() -> str:
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])


def pull_secret(namespace: str) -> dict[str, Any]:
    """The Secret with which a namespace's pods may pull from the registry."""
    return registry.pull_secret(namespace, PULL_SECRET, place.REGISTRY)


def namespaces(system: str, serving: str, folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The operator's and a deployment's, under Pod Security `restricted`, with the pull Secret.

    The latter has claims, which its podTemplates may mount, in place of the images' content.
    """
    offered = {"aurora.dev/allowed-claims": ", ".join(folders)}
    made: list[dict[str, Any]] = []
    for name, noted in ((system, {}), (serving, offered)):
        metadata = {
            "name": name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            "annotations": noted,
        }
        made += [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
            pull_secret(name),
        ]
    return made + [
        each for claim, folder in folders.items() for each in claimed(serving, claim, folder)
    ]


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
    for component in _EMPTY:
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
    container = {"name": component, "volumeMounts": mounts(folders), "env": _ONE_THREAD}
    return {"spec": {"containers": [container], "volumes": volumes(folders)}}
