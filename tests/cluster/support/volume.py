"""Volumes of pods: claims get storage, Secrets become folders, missing ones are reported."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.api import ApiError, AsyncApi, Mirror

Json = dict[str, Any]


class Secrets:
    """Every Secret as a folder, as a kubelet mounts it; replaced as a whole when it changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, namespace: str, name: str) -> Path:
        return self._folder / namespace / name

    def write(self, secret: Json, gone: bool) -> None:
        """Applies a change. A deleted Secret stays mounted where it was."""
        if gone:
            return
        metadata = secret["metadata"]
        folder = self.folder(metadata["namespace"], metadata["name"])
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in (secret.get("data") or {}).items():
            beside = folder / f".{key}"
            beside.write_bytes(base64.b64decode(value))
            beside.replace(folder / key)


async def provision(api: AsyncApi, claim: Json) -> None:
    """Creates a volume for a pending claim and binds them."""
    metadata, spec = claim["metadata"], claim["spec"]
    volume = {
        "metadata": {"name": f"pv-{metadata['uid']}"},
        "spec": {
            "capacity": spec["resources"]["requests"],
            "accessModes": spec["accessModes"],
            "hostPath": {"path": "/nowhere"},
            "storageClassName": spec.get("storageClassName", ""),
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }
    try:
        await api.request("POST", "/api/v1/persistentvolumes", volume)
    except ApiError as error:
        if error.status != 409:
            raise


async def release(api: AsyncApi, claim: Json) -> None:
    """Removes the volume of a deleted claim."""
    try:
        name = f"pv-{claim['metadata']['uid']}"
        await api.request("DELETE", f"/api/v1/persistentvolumes/{name}")
    except ApiError as error:
        if error.status != 404:
            raise


def missing_volumes(pod: Json, secrets: Mirror, maps: Mirror, claims: Mirror) -> Iterator[str]:
    """Why volumes cannot be mounted, in the kubelet's words."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes", ()):
        for kind, source, field, mirror in (
            ("secret", "secret", "secretName", secrets),
            ("configmap", "configMap", "name", maps),
            ("persistentvolumeclaim", "persistentVolumeClaim", "claimName", claims),
        ):
            named = volume.get(source)
            if named is None or named.get("optional"):
                continue
            if mirror.get(namespace, named[field]) is None:
                problem = f'{kind} "{named[field]}" not found'
                yield f'MountVolume.SetUp failed for volume "{volume["name"]}" : {problem}'


def missing_environment(pod: Json, container: Json, secrets: Mirror) -> str:
    """Why a container's environment is incomplete, in the kubelet's words; empty if it is not."""
    namespace = pod["metadata"]["namespace"]
    for variable in container.get("env", ()):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is None or reference.get("optional"):
            continue
        secret = secrets.get(namespace, reference["name"])
        if secret is None:
            return f'secret "{reference["name"]}" not found'
        if reference["key"] not in (secret.get("data") or {}):
            place = f"{namespace}/{reference['name']}"
            return f"couldn't find key {reference['key']} in Secret {place}"
    return ""
