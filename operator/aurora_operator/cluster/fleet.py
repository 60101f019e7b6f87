"""One deployment's pods, and the gRPC channels to its inferences."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aurora_common.tls import Certificates
from aurora_operator.adapters.channel import Peer
from aurora_operator.adapters.inference import GrpcInference
from aurora_operator.adapters.kubernetes import Json
from aurora_operator.cluster.kinds import COMPONENT, Key
from aurora_operator.domain.certificate import dns_name
from aurora_operator.domain.objects.attached import ENGINE
from aurora_operator.domain.objects.pod import CONTROL, url_host
from aurora_operator.domain.plan.observation import ComponentView, Problem, Scale
from aurora_operator.reconcile.fleet import Judge

# Of a Deployment's pods, and so of their ReplicaSet's name.
_TEMPLATE_HASH = "pod-template-hash"
_CONTROLLERS = frozenset({"ReplicaSet", "StatefulSet"})


def component_pods(pods: Iterable[Json], component: str) -> list[Json]:
    return [pod for pod in pods if pod["metadata"].get("labels", {}).get(COMPONENT) == component]


def is_run_by(pod: Json, key: Key) -> bool:
    """Whether a workload of the deployment controls the pod: anybody may give one its labels."""
    metadata = pod["metadata"]
    labels = metadata.get("labels", {})
    workload = f"{key.name}-{labels.get(COMPONENT)}"
    if ENGINE in labels:
        workload += f"-{labels[ENGINE]}"
    names = {workload, f"{workload}-{labels.get(_TEMPLATE_HASH)}"}
    return any(
        each.get("controller") and each["kind"] in _CONTROLLERS and each["name"] in names
        for each in metadata.get("ownerReferences", ())
    )


def is_ready(pod: Json) -> bool:
    return not is_leaving(pod) and any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions", ())
    )


def is_leaving(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_reachable(pod: Json, component: str) -> bool:
    """Whether the pod has an address and its component's container runs, perhaps a sidecar."""
    status = pod.get("status", {})
    kinds = ("containerStatuses", "initContainerStatuses")
    return bool(status.get("podIP")) and any(
        container["name"] == component and "running" in container.get("state", {})
        for kind in kinds
        for container in status.get(kind, ())
    )


def peer(pod: Json, key: Key, component: str, port: int, identity: Certificates | None) -> Peer:
    """A pod's port; its certificate is issued for the component's Service."""
    return Peer(
        f"{url_host(pod['status']['podIP'])}:{port}",
        identity,
        "" if identity is None else dns_name(key.name, component, namespace=key.namespace),
    )


class PodFleet:
    """Updated before each reconcile; a channel lives as long as its pod, address and identity."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._channels: dict[tuple[str, Peer], GrpcInference] = {}
        self.inferences: tuple[GrpcInference, ...] = ()
        self.judge: Judge | None = None
        self.expected: frozenset[str] = frozenset()
        self.existing: frozenset[str] = frozenset()
        self.components: tuple[ComponentView, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self.scale: Scale | None = None

    async def update_pods(
        self, pods: Iterable[Json], identity: Certificates | None, *, secure: bool
    ) -> None:
        """Opens channels to new inference pods and closes those of pods that are gone.

        `secure`: without an identity no channel is opened.
        """
        found = component_pods(pods, "inference")
        self.existing = frozenset(pod["metadata"]["name"] for pod in found)
        self.expected = frozenset(pod["metadata"]["name"] for pod in found if is_ready(pod))
        channels: dict[tuple[str, Peer], GrpcInference] = {}
        for pod in found:
            if not is_reachable(pod, "inference") or (secure and identity is None):
                continue
            metadata = pod["metadata"]
            place = peer(pod, self._key, "inference", CONTROL, identity)
            inference = self._channels.get((metadata["uid"], place))
            if inference is None:
                inference = GrpcInference(metadata["name"], place)
            inference.leaving = is_leaving(pod)
            channels[metadata["uid"], place] = inference
        ended = [held for place, held in self._channels.items() if place not in channels]
        self._channels = channels
        self.inferences = tuple(channels.values())
        await asyncio.gather(*(inference.close() for inference in ended))

    async def close(self) -> None:
        """Closes every channel."""
        channels, self._channels, self.inferences = self._channels, {}, ()
        await asyncio.gather(*(inference.close() for inference in channels.values()))
