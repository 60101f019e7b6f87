"""An admission policy that gives the machine's Python to pods of a namespace whose images lack it.

With it a manifest need not mention the machine, just as if the images held Python themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.image_build import COMPONENTS

_NAME = "python-of-the-machine"
_VERSION = "admissionregistration.k8s.io/v1"
# The images of `image_build` hold their own.
_BUILT = (
    "!object.spec.containers.exists(container, "
    f"container.image.matches('aurora-({'|'.join(COMPONENTS)}):'))"
)


def machine_policy(folders: Mapping[str, Path], namespaces: Sequence[str]) -> list[dict[str, Any]]:
    """The policy and its binding, for the claims of `host_folder`."""
    return [
        {
            "apiVersion": _VERSION,
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": _NAME},
            "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConditions": [{"name": "image-lacks-python", "expression": _BUILT}],
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["pods"],
                        }
                    ]
                },
                "mutations": [
                    {
                        "patchType": "ApplyConfiguration",
                        "applyConfiguration": {"expression": _expression(folders)},
                    }
                ],
            },
        },
        {
            "apiVersion": _VERSION,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": _NAME},
            "spec": {
                "policyName": _NAME,
                "matchResources": {
                    "namespaceSelector": {
                        "matchExpressions": [
                            {
                                "key": "kubernetes.io/metadata.name",
                                "operator": "In",
                                "values": list(namespaces),
                            }
                        ]
                    }
                },
            },
        },
    ]


def _expression(folders: Mapping[str, Path]) -> str:
    """A value as CEL, whose strings are JSON's."""
    volumes, mounts = [], []
    for name, folder in folders.items():
        volume, claim = json.dumps(f"host-{name}"), json.dumps(name)
        source = f"{{claimName: {claim}, readOnly: true}}"
        volumes.append(
            f"Object.spec.volumes{{name: {volume}, "
            f"persistentVolumeClaim: Object.spec.volumes.persistentVolumeClaim{source}}}"
        )
        mounts.append(
            f"Object.spec.containers.volumeMounts{{name: {volume}, "
            f"mountPath: {json.dumps(str(folder))}, readOnly: true}}"
        )
    containers = (
        "object.spec.containers.map(container, Object.spec.containers{name: container.name, "
        f"volumeMounts: [{', '.join(mounts)}]}})"
    )
    return (
        f"Object{{spec: Object.spec{{volumes: [{', '.join(volumes)}], containers: {containers}}}}}"
    )
