"""Folders of the machine in pods: a PersistentVolume of each, which `restricted` pods may mount."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import place
from harness.image import USER

_MODES = ["ReadOnlyMany", "ReadWriteOnce"]
_SIZE = {"storage": "10Gi"}


def python_folders() -> dict[str, Path]:
    """The folders from which this Python runs; none is within another."""
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


def writable_folder(name: str) -> Path:
    """A folder that pods may write, removed with the node."""
    path = place.FOLDER / name
    path.mkdir()
    os.chown(path, USER, USER)
    return path


def volume(namespace: str, claim: str, folder: Path) -> dict[str, Any]:
    """A PersistentVolume of a folder of the machine, for a claim of that name alone."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}"},
        "spec": {
            "accessModes": _MODES,
            "storageClassName": "",
            "capacity": _SIZE,
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": str(folder), "type": "Directory"},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }


def claimed(namespace: str, claim: str, folder: Path) -> list[dict[str, Any]]:
    """Such a volume, and the claim that is bound to it."""
    made = volume(namespace, claim, folder)
    claim_spec = {
        "accessModes": _MODES,
        "storageClassName": "",
        "volumeName": made["metadata"]["name"],
        "resources": {"requests": _SIZE},
    }
    return [
        made,
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": claim_spec,
        },
    ]


def volumes(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A pod's volumes of the claims of these names."""
    return [
        {"name": f"host-{name}", "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
        for name in folders
    ]


def mounts(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A container's mounts of them, at their paths on the machine."""
    return [
        {"name": f"host-{name}", "mountPath": str(folder), "readOnly": True}
        for name, folder in folders.items()
    ]
