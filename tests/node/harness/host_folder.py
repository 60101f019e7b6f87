"""Folders of the machine in pods: a PersistentVolume of each, which `restricted` pods may mount."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import place


def python_folders() -> dict[str, Path]:
    """The folders from which this Python runs; none lies within another."""
    folders = {
        "system": Path("/usr"),
        "python": Path(sys.base_prefix).resolve(),
        "repository": place.REPOSITORY,
        "environment": Path(sys.prefix).resolve(),
    }
    return {
        name: folder
        for name, folder in folders.items()
        if not any(other in folder.parents for other in folders.values())
    }


def claimed(namespace: str, claim: str, folder: Path, mode: str = "ReadOnlyMany") -> list[Any]:
    """A volume that is a folder of the machine, and the claim that is bound to it alone."""
    name = f"{namespace}-{claim}"
    size = {"storage": "10Gi"}
    common = {"accessModes": [mode], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **common,
                "capacity": size,
                "claimRef": {"namespace": namespace, "name": claim},
                "hostPath": {"path": str(folder), "type": "Directory"},
                "persistentVolumeReclaimPolicy": "Retain",
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {**common, "volumeName": name, "resources": {"requests": size}},
        },
    ]


def volumes(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A pod's volumes of the claims of these names."""
    return [
        {"name": f"host-{name}", "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
        for name in folders
    ]


def mounts(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A container's mounts of them, at the paths that they have on the machine."""
    return [
        {"name": f"host-{name}", "mountPath": str(folder), "readOnly": True}
        for name, folder in folders.items()
    ]
