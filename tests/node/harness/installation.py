"""A user's values and manifest to install the chart and deploy a model on this node."""

from __future__ import annotations

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
COMPONENTS = ("inference", "buffer", "trainer")
_CONTAINERS = {"inference": ("inference",), "buffer": ("buffer", "redis"), "trainer": ("trainer",)}
# Every pod and the cluster itself share two cores.
_ONE_THREAD = [{"name": "OMP_NUM_THREADS", "value": "1"}]


def images() -> list[str]:
    """The images of `make images`, and a second one of inference to upgrade to."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    made = [f"aurora-{component}:{version}" for component in ("operator", *COMPONENTS)]
    return [f"docker.io/library/{name}" for name in (*made, ANOTHER_IMAGE)]


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
    spec["rollout"]["analysis"] = {"alpha": "0.05", "minRequests": 24, "maxDuration": "30s"}
    spec["security"] = {"authSecretRef": {"name": "chat-tokens"}}
    spec["inference"] = {"maxContextTokens": 256}
    for component in COMPONENTS:
        spec.setdefault(component, {})["podTemplate"] = _pod_template(component, folders)
    return result


def _pod_template(component: str, folders: Mapping[str, Path]) -> dict[str, Any]:
    containers = [
        {"name": name, "volumeMounts": mounts(folders), "env": _ONE_THREAD}
        for name in _CONTAINERS[component]
    ]
    return {"spec": {"containers": containers, "volumes": volumes(folders)}}
