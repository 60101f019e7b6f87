"""One pod on the stand-in node, from its binding to the end of its last container."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from support.api import ApiError, Json
from support.pod_status import Container, pod_status
from support.standin import InferenceStandin, TrainerStandin
from support.volume import missing_environment, missing_volumes

from aurora.inference.v1 import inference_pb2_grpc
from aurora.trainer.v1 import trainer_pb2_grpc
from aurora_common.admission import everyone, only_peers
from aurora_common.grpc_server import GrpcServer
from aurora_common.tls import CertificateFolder

if TYPE_CHECKING:
    from support.kubelet import Kubelet

TLS_VOLUME = "aurora-tls"
_PORTS = {"inference": 9001, "trainer": 9000}
_COMPONENT = "app.kubernetes.io/component"
_INSTANCE = "app.kubernetes.io/instance"
_POLL_SECONDS = 0.1


class Stop(Protocol):
    """Stops a container's server."""

    def __call__(self) -> Awaitable[None]: ...


class PodWorker:
    """Created when the pod is bound to the node; `standin` is its inference while running."""

    def __init__(self, kubelet: Kubelet, pod: Json) -> None:
        self._kubelet = kubelet
        self._pod = pod
        metadata = pod["metadata"]
        self.namespace, self.name, self.uid = (
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
        )
        self.component = metadata.get("labels", {}).get(_COMPONENT, "")
        self.address = ""
        self.standin: InferenceStandin | None = None
        self._containers = {
            each["name"]: Container.created(each["name"], each["image"])
            for each in pod["spec"]["containers"]
        }
        self._stops: dict[str, Stop] = {}
        self._crashes: dict[str, asyncio.Queue[str]] = {
            name: asyncio.Queue() for name in self._containers
        }
        self._leaving = asyncio.Event()
        self._one_write = asyncio.Lock()
        self._task = asyncio.create_task(self._run())
        self.changed(pod)

    def changed(self, pod: Json) -> None:
        """Sets the newest state of the pod."""
        self._pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._leaving.set()

    async def crash(self, container: str, message: str) -> None:
        """Ends a container's process."""
        self._crashes[container].put_nowait(message)

    async def abandon(self) -> None:
        """Stops everything at once: the pod is gone."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._stop_all()

    @property
    def is_ready(self) -> bool:
        return all(container.ready for container in list(self._containers.values()))

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            life = group.create_task(self._live())
            await self._leaving.wait()
            life.cancel()
        await self._end()

    async def _live(self) -> None:
        await self._await_volumes()
        self.address = self._kubelet.new_address()
        async with asyncio.TaskGroup() as group:
            for spec in self._pod["spec"]["containers"]:
                group.create_task(self._run_container(spec))

    async def _await_volumes(self) -> None:
        kubelet = self._kubelet
        reported: set[str] = set()
        await asyncio.sleep(kubelet.pace.start)
        while missing := list(
            missing_volumes(
                self._pod, kubelet.secret_mirror, kubelet.map_mirror, kubelet.claim_mirror
            )
        ):
            for message in missing:
                if message not in reported:
                    await kubelet.warn(self._pod, "FailedMount", message)
                    await self._write()
            reported.update(missing)
            await asyncio.sleep(_POLL_SECONDS)

    async def _run_container(self, spec: Json) -> None:
        name, image = spec["name"], spec["image"]
        pace, faults = self._kubelet.pace, self._kubelet.faults
        while True:
            await self._await_start(spec)
            self._stops[name] = await self._serve(name)
            await self._show(self._containers[name].started())
            ended = self._containers[name].ended
            if image in faults.killed:
                end = ended(137, reason="OOMKilled")
            elif image in faults.crashing:
                end = ended(1, faults.crashing[image])
            else:
                await self._become_ready(name, image)
                message = await self._crashes[name].get()
                end = self._containers[name].ended(1, message)
            await self._stops.pop(name)()
            await self._show(end)
            await self._show(self._containers[name].backing_off(f"{self.name}_{self.namespace}"))
            await asyncio.sleep(pace.back_off)

    async def _await_start(self, spec: Json) -> None:
        """Waits for the container's image and environment."""
        name, image = spec["name"], spec["image"]
        while True:
            reason = "ErrImagePull"
            problem = ""
            if image in self._kubelet.faults.unpullable:
                known = self._containers[name].state.get("waiting", {}).get("reason")
                reason = "ErrImagePull" if known == "ContainerCreating" else "ImagePullBackOff"
                problem = f'Back-off pulling image "{image}": not found'
            elif image in self._kubelet.faults.held:
                reason, problem = self._kubelet.faults.held[image]
            elif problem := missing_environment(self._pod, spec, self._kubelet.secret_mirror):
                reason = "CreateContainerConfigError"
            if not problem:
                return
            held = self._containers[name].held(reason, problem)
            if held != self._containers[name]:
                await self._show(held)
            await asyncio.sleep(_POLL_SECONDS)

    async def _become_ready(self, name: str, image: str) -> None:
        await asyncio.sleep(self._kubelet.pace.ready)
        while image in self._kubelet.faults.unready:  # noqa: ASYNC110 - a test's thread sets it
            await asyncio.sleep(_POLL_SECONDS)
        await self._show(replace(self._containers[name], ready=True))

    async def _serve(self, container: str) -> Stop:
        """Starts the container's server, if it has a stand-in."""
        if container != self.component or container not in _PORTS:
            return _nothing
        secret = self._certificates()
        server = GrpcServer(
            f"{self.address}:{_PORTS[container]}",
            drain_seconds=0.2,
            admit=everyone if secret is None else only_peers(self._admitted(container)),
            certificates=secret,
        )
        if container == "inference":
            self.standin = InferenceStandin(self._kubelet.world, self.name)
            server.add(inference_pb2_grpc.add_InferenceServicer_to_server, self.standin)
            await server.start(["aurora.inference.v1.Inference"])
            return server.stop
        deployment = self._pod["metadata"]["labels"][_INSTANCE]
        trainer = TrainerStandin(self._kubelet.world, self.namespace, deployment)
        server.add(trainer_pb2_grpc.add_TrainerServicer_to_server, trainer)
        await server.start(["aurora.trainer.v1.Trainer"])

        async def stop() -> None:
            trainer.close()
            await server.stop()

        return stop

    def _admitted(self, container: str) -> list[str]:
        """The callers that the container's command admits."""
        command: list[str] = next(
            each["command"] for each in self._pod["spec"]["containers"] if each["name"] == container
        )
        return [value for flag, value in pairwise(command) if flag == "--admit"]

    def _certificates(self) -> CertificateFolder | None:
        for volume in self._pod["spec"].get("volumes", ()):
            if volume["name"] == TLS_VOLUME:
                name = volume["secret"]["secretName"]
                return CertificateFolder(self._kubelet.secrets.folder(self.namespace, name))
        return None

    async def _end(self) -> None:
        """Drains, so that the judge sees all outcomes, then ends the containers."""
        for container in list(self._containers.values()):
            self._containers[container.name] = replace(container, ready=False)
        await self._write()
        standin = self.standin
        if standin is not None and "inference" in self._stops:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._kubelet.pace.drain):
                    while not standin.is_drained:  # noqa: ASYNC110 - changes with the judge's next call
                        await asyncio.sleep(_POLL_SECONDS)
        await self._stop_all()
        for container in list(self._containers.values()):
            if container.is_running:
                self._containers[container.name] = container.ended(0)
        await self._write()
        await self._kubelet.remove(self._path, self.uid)

    async def _stop_all(self) -> None:
        stops, self._stops = list(self._stops.values()), {}
        for stop in stops:
            await stop()

    async def _show(self, container: Container) -> None:
        self._containers[container.name] = container
        await self._write()

    async def _write(self) -> None:
        # One at a time: the last one written must be the latest.
        async with self._one_write:
            containers = list(self._containers.values())
            status = pod_status(self._pod, containers, self.address, self._kubelet.host)
            # The pod is gone, or about to be.
            with suppress(ApiError):
                await self._kubelet.merge(f"{self._path}/status", {"status": status})


async def _nothing() -> None:
    """Stops nothing: the container has no stand-in."""
