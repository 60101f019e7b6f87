"""The newest known body of every object that belongs to a deployment, kept small."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Any

from aurora_operator.adapters.kubernetes import Json
from aurora_operator.cluster.kinds import POD, Key, Reference, reference

# Whose status says how a deployment is.
_WITH_STATUS = frozenset({"Deployment", "StatefulSet", "Pod", "AuroraDeployment"})
# What the kubelet and the scheduler read of a pod, and nobody here.
_POD_SPEC = frozenset({"nodeName", "containers", "volumes", "initContainers"})


class News(Enum):
    """What a body said that was not known: nothing, only how the object fares, or what it is."""

    NONE = 0
    STATUS = 1
    ESSENCE = 2


# How packed content begins; JSON begins with a brace.
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
    """The object without what nobody reads, packed."""
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
        # What every look reads stays as it is: unpacking lets other threads in, and they keep on.
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
    """By deployment; used from several threads. What is older than what is known changes nothing:
    a watch may lag behind an answer."""

    def __init__(self) -> None:
        self._by_key: dict[Key, dict[Reference, Known]] = {}
        self._lock = Lock()

    def remember(self, key: Key, body: Json) -> News:
        """Takes a body over, and what of it was news."""
        place, version = reference(body), int(body["metadata"]["resourceVersion"])
        if (before := self.known(key, place)) is not None and before.version >= version:
            return News.NONE
        entry = known(body)
        with self._lock:
            children = self._by_key.setdefault(key, {})
            before = children.get(place)
            if before is not None and before.version >= version:
                return News.NONE
            children[place] = entry
            same = before is not None and before.essence == entry.essence
            return News.STATUS if same else News.ESSENCE

    def forget(self, key: Key, place: Reference, uid: str) -> bool:
        """Drops the object of that uid, and whether it was known."""
        with self._lock:
            children = self._by_key.get(key, {})
            before = children.get(place)
            if before is None or before.uid != uid:
                return False
            del children[place]
            if not children:
                del self._by_key[key]
            return True

    def known(self, key: Key, place: Reference) -> Known | None:
        with self._lock:
            return self._by_key.get(key, {}).get(place)

    def get(self, key: Key, place: Reference) -> Json | None:
        entry = self.known(key, place)
        return None if entry is None else entry.body

    def places(self, key: Key) -> frozenset[Reference]:
        with self._lock:
            return frozenset(self._by_key.get(key, ()))

    def of_kind(self, key: Key, kind: str) -> list[Json]:
        """The bodies of one kind, by name."""
        with self._lock:
            entries = sorted(
                (place, entry)
                for place, entry in self._by_key.get(key, {}).items()
                if place.kind == kind
            )
        return [entry.body for _, entry in entries]

    def versions(self, kind: str) -> dict[tuple[Key, Reference], Known]:
        """Everything known of one kind."""
        with self._lock:
            return {
                (key, place): entry
                for key, children in self._by_key.items()
                for place, entry in children.items()
                if place.kind == kind
            }

    def __len__(self) -> int:
        with self._lock:
            return sum(len(children) for children in self._by_key.values())
