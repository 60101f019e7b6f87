"""A pod as Aurora's own are confined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.image import USER


def restricted(namespace: str, name: str, container: Mapping[str, Any]) -> dict[str, Any]:
    """A pod that Pod Security `restricted` admits, with a read-only root and a writable /tmp."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = [{"name": "tmp", "mountPath": "/tmp"}, *container.get("volumeMounts", ())]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{**container, "volumeMounts": mounted, "securityContext": security}],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
