"""A node whose pods are stand-ins: the API server sees what a real kubelet would report.

Each pod gets its own loopback address, where the stand-in of its main container serves the real
gRPC contract, with the certificates that its volumes name.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from support.api import MERGE, ApiError, AsyncApi, Json, Mirror
from support.background import Background
from support.pod_status import now
from support.pod_worker import PodWorker
from support.standin import World, digest_of
from support.volume import Secrets, provision, release

from aurora.trainer.v1 import trainer_pb2

NAME = "node-1"
_KUBELET_PORT = 10250
_HEARTBEAT_SECONDS = 8.0
_CAPACITY = {"cpu": "4k", "memory": "64Ti", "pods": "4k", "nvidia.com/gpu": "4k"}


@dataclass(slots=True)
class Faults:
    """The node's faults; a test sets them, and pods follow within a moment.

    `unpullable`: images that do not exist. `crashing`: images that exit right after their
    start, and the last line of their log. `unready`: images that run and never become ready.
    `killed`: images that use too much memory. `held`: images that cannot be started, with the
    kubelet's reason and message. `unprovisioned`: storage classes without volumes.
    """

    unpullable: set[str] = field(default_factory=set)
    crashing: dict[str, str] = field(default_factory=dict)
    unready: set[str] = field(default_factory=set)
    killed: set[str] = field(default_factory=set)
    held: dict[str, tuple[str, str]] = field(default_factory=dict)
    unprovisioned: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Pace:
    """The node's delays, in seconds."""

    start: float = 0.05
    ready: float = 0.05
    drain: float = 0.5
    back_off: float = 1.0


class Kubelet:
    """The node; its methods may be called from any thread but its own."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.world = World()
        self.faults = Faults()
        self.pace = Pace()
        self.secrets = Secrets(folder)
        self._kubeconfig = kubeconfig
        # Held for the node's life, so that no other run uses the same addresses.
        self._network, self._held = _network()
        self._addresses = itertools.count(2)
        self._pods: dict[str, PodWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._background = Background("kubelet")
        self._background.call(self._start())

    @property
    def host(self) -> str:
        return f"127.{self._network}.0.1"

    def publish(self, namespace: str, deployment: str, *, acceptance: float) -> str:
        """Has a deployment's trainer publish its next checkpoint; returns its digest."""
        known = self.world.checkpoints[namespace, deployment]
        sequence = len(known) + 1
        digest = digest_of(f"{namespace}/{deployment}/{sequence}")
        self.world.acceptance[digest] = acceptance
        known.append(
            trainer_pb2.Checkpoint(
                sequence=sequence,
                name=f"ckpt-{sequence}",
                digest=digest,
                uri=f"file:///claims/models/{deployment}/ckpt-{sequence}-{digest[7:19]}",
                trained_through=f"{sequence}-0",
            )
        )
        return digest

    def reset(self) -> None:
        """Resets the node and the stand-ins."""
        for fault in fields(self.faults):
            getattr(self.faults, fault.name).clear()
        self.pace = Pace()
        self.world.reset()

    def crash(
        self, namespace: str, pod: str, container: str = "inference", message: str = ""
    ) -> None:
        """Ends a running container's process, which is then restarted."""
        self._background.call(self._find(namespace, pod).crash(container, message))

    def workers(self, namespace: str, component: str = "") -> list[PodWorker]:
        """The pods of a namespace that run here."""
        return [
            worker
            for worker in list(self._pods.values())
            if worker.namespace == namespace and component in ("", worker.component)
        ]

    def cordon(self, *, unschedulable: bool = True) -> None:
        """Cordons or uncordons the node."""
        spec = {"spec": {"unschedulable": unschedulable}}
        self._background.call(self.merge(f"/api/v1/nodes/{NAME}", spec))

    def close(self) -> None:
        """Ends every stand-in, without telling the API server."""
        self._background.call(self._stop())
        self._background.close()
        self._held.close()

    # The rest is for the node's own thread.

    def new_address(self) -> str:
        number = next(self._addresses)
        return f"127.{self._network}.{number >> 8}.{number & 255}"

    async def merge(self, path: str, body: Json) -> None:
        await self._api.request("PATCH", path, body, content_type=MERGE)

    async def remove(self, path: str, uid: str) -> None:
        """Deletes a pod whose processes are gone."""
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        with suppress(ApiError):
            await self._api.request("DELETE", path, options)

    async def warn(self, pod: Json, reason: str, message: str) -> None:
        """Records a Warning about a pod, as `kubectl describe` shows it."""
        metadata = pod["metadata"]
        event = {
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}"},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                **{key: metadata[key] for key in ("name", "namespace", "uid")},
            },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": NAME},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        with suppress(ApiError):
            path = f"/api/v1/namespaces/{metadata['namespace']}/events"
            await self._api.request("POST", path, event)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self) -> None:
        self._api = AsyncApi(self._kubeconfig)
        await self._register()
        pods = f"/api/v1/pods?fieldSelector=spec.nodeName={NAME}"
        self.secret_mirror = self._mirror("/api/v1/secrets", self.secrets.write)
        self.map_mirror = self._mirror("/api/v1/configmaps", lambda body, gone: None)
        self.claim_mirror = self._mirror("/api/v1/persistentvolumeclaims", self._claim_changed)
        self._mirror(pods, self._pod_changed)
        self.begin(self._keep_alive())

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.abandon() for worker in self._pods.values()))
        await self._api.close()

    def _mirror(self, path: str, on_change: Callable[[Json, bool], None]) -> Mirror:
        mirror = Mirror(self._api, path, on_change)
        self.begin(mirror.run())
        return mirror

    def _pod_changed(self, pod: Json, gone: bool) -> None:
        uid = pod["metadata"]["uid"]
        if gone:
            if (worker := self._pods.pop(uid, None)) is not None:
                self.begin(worker.abandon())
        elif uid in self._pods:
            self._pods[uid].changed(pod)
        elif pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self._pods[uid] = PodWorker(self, pod)

    def _claim_changed(self, claim: Json, gone: bool) -> None:
        if gone:
            self.begin(release(self._api, claim))
        elif (
            claim.get("status", {}).get("phase") == "Pending"
            and "volumeName" not in claim["spec"]
            and claim["spec"].get("storageClassName") not in self.faults.unprovisioned
        ):
            self.begin(provision(self._api, claim))

    def _find(self, namespace: str, pod: str) -> PodWorker:
        for worker in self.workers(namespace):
            if worker.name == pod:
                return worker
        raise LookupError(f"no pod {pod} runs here")

    async def _register(self) -> None:
        labels = {"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux"}
        node = {"metadata": {"name": NAME, "labels": labels}, "spec": {}}
        with suppress(ApiError):
            await self._api.request("POST", "/api/v1/nodes", node)
        await self._heartbeat()
        # The taint of a new node would only be removed after a while.
        await self.merge(f"/api/v1/nodes/{NAME}", {"spec": {"taints": None}})

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            with suppress(ApiError):
                await self._heartbeat()

    async def _heartbeat(self) -> None:
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the node plays its pods",
            "lastHeartbeatTime": now(),
            "lastTransitionTime": now(),
        }
        status = {
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": self.host}],
        }
        await self.merge(f"/api/v1/nodes/{NAME}/status", {"status": status})


def _network() -> tuple[int, socket.socket]:
    """The second octet of unused loopback addresses, and the socket that reserves it."""
    for octet in range(1, 255):
        held = socket.socket()
        try:
            held.bind((f"127.{octet}.0.1", _KUBELET_PORT))
        except OSError:
            held.close()
            continue
        return octet, held
    raise RuntimeError("every network on loopback is taken")
