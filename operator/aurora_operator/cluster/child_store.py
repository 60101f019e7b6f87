"""The newest known body of every object that belongs to a deployment, packed."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aurora_operator.adapters.kubernetes import Json
from aurora_operator.cluster.kinds import GROUP, POD, Key, Reference, reference

# Kinds whose status is read.
_WITH_STATUS = frozenset({"Deployment", "StatefulSet", GROUP.kind, "Pod", "AuroraDeployment"})
# The rest of a pod's spec is for the kubelet and the scheduler.
_POD_SPEC = frozenset({"nodeName", "containers", "volumes", "initContainers"})


class News(Enum):
    """What of a body was new: nothing, only its status, or its essence."""

    NONE = 0
    STATUS = 1
    ESSENCE = 2


# The first byte of packed content; JSON begins with a brace.
_ZLIB = b"\x78"


@dataclass(frozen=True, slots=True)
class Known:
    """An object's version and packed body; `essence` is a checksum of all but its status."""

    uid: str
    version: int
    essence: int
    content: bytes

    @property
    def body(self) -> Json:
        packed = self.content.startswith(_ZLIB)
        body: Json = json.loads(zlib.decompress(self.content) if packed else self.content)
        return body


def known(body: Json) -> Known:
    """The object, packed, without the fields that are never read."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    kept: dict[str, Any] = {**body, "metadata": metadata}
    if body["kind"] not in _WITH_STATUS:
        kept.pop("status", None)
    if body["kind"] == POD.kind:
        kept["spec"] = _trimmed_pod(body.get("spec", {}))
    unversioned = {name: value for name, value in metadata.items() if name != "resourceVersion"}
    essence = {**kept, "metadata": unversioned, "status": None}
    encoded = _encoded(kept)
    return Known(
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        essence=zlib.crc32(_encoded(essence)),
        # What every reconcile reads is not compressed: it is decoded far more often than stored.
        content=encoded if body["kind"] in _WITH_STATUS else zlib.compress(encoded, 3),
    )


def _encoded(body: Json) -> bytes:
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode()


def _trimmed_pod(spec: Json) -> Json:
    containers = [
        {"name": container["name"], "image": container.get("image", "")}
        for container in spec.get("containers", ())
    ]
    return {name: value for name, value in spec.items() if name in _POD_SPEC} | {
        "containers": containers
    }


class ChildStore:
    """Objects by deployment. A body older than the known one is ignored: a watch may lag behind the
    answer to a write."""

    def __init__(self) -> None:
        self._by_key: dict[Key, dict[Reference, Known]] = {}
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(len(children) for children in self._by_key.values())

    def remember(self, key: Key, body: Json) -> News:
        """Stores a body and returns what of it was new."""
        place, version = reference(body), int(body["metadata"]["resourceVersion"])
        before = self.known(key, place)
        if before is not None and before.version >= version:
            return News.NONE
        entry = known(body)
        self._by_key.setdefault(key, {})[place] = entry
        self._count[place.kind] += before is None
        same = before is not None and before.essence == entry.essence
        return News.STATUS if same else News.ESSENCE

    def forget(self, key: Key, place: Reference, uid: str) -> bool:
        """Drops the object of that uid; False if it was not known."""
        before = self.known(key, place)
        if before is None or before.uid != uid:
            return False
        del self._by_key[key][place]
        self._count[place.kind] -= 1
        if not self._by_key[key]:
            del self._by_key[key]
        return True

    def known(self, key: Key, place: Reference) -> Known | None:
        return self._by_key.get(key, {}).get(place)

    def get(self, key: Key, place: Reference) -> Json | None:
        entry = self.known(key, place)
        return None if entry is None else entry.body

    def places(self, key: Key) -> frozenset[Reference]:
        return frozenset(self._by_key.get(key, ()))

    def of_kind(self, key: Key, kind: str) -> list[Json]:
        """The bodies of one kind, by name."""
        children = self._by_key.get(key, {})
        return [children[place].body for place in sorted(children) if place.kind == kind]

    def has(self, kind: str) -> bool:
        """Whether any object of one kind is known."""
        return self._count[kind] > 0

    def versions(self, kind: str) -> dict[tuple[Key, Reference], Known]:
        """Every known object of one kind."""
        return {
            (key, place): entry
            for key, children in self._by_key.items()
            for place, entry in children.items()
            if place.kind == kind
        }
