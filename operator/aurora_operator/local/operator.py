"""The operator of one machine: the reconciler over local processes, and its gRPC service."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from aurora.operator.v1 import operator_pb2_grpc
from aurora_common.checkpoint import read_manifest
from aurora_common.durable import write_file
from aurora_common.errors import AuroraError, NotFoundError, UnavailableError
from aurora_common.grpc_server import GrpcServer, stop_signal
from aurora_common.leash import LEASH_VARIABLE
from aurora_common.store.published import PublishedDrafts
from aurora_common.store.registry import model_store
from aurora_operator.adapters.channel import Peer
from aurora_operator.adapters.inference import GrpcInference
from aurora_operator.adapters.reporting import reporting
from aurora_operator.adapters.trainer import CheckpointFeed
from aurora_operator.adapters.webhook import Webhook
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.housekeeping import Housekeeping, housekeeping
from aurora_operator.domain.plan.observation import ComponentView, Problem, Scale
from aurora_operator.domain.status.deployment import Draft
from aurora_operator.local.child import adopted
from aurora_operator.local.guardian import LocalOptions, read_manifest_file
from aurora_operator.local.layout import Layout
from aurora_operator.local.port import chosen_ports
from aurora_operator.local.preflight import check
from aurora_operator.local.process import ComponentDetail, ProcessRuntime
from aurora_operator.local.process_spec import (
    HOST,
    Ports,
    ProcessSpec,
    desired_processes,
    models_folder,
    rank_names,
)
from aurora_operator.local.record import RecordBook
from aurora_operator.local.servicer import SERVICE, Changes, OperatorServicer
from aurora_operator.local.state_file import StatusFile, accept, read_accepted
from aurora_operator.reconcile.fleet import Inference, Judge
from aurora_operator.reconcile.reconciler import Generation, Reconciler

logger = logging.getLogger(__name__)

_KEPT_PORTS = ("buffer", "trainer", "control", "operator", "engine", "meeting")
# Calls are short, and watches are closed first.
_DRAIN_SECONDS = 1.0
_PRUNE_RETRY_SECONDS = 2.0


class LocalOperator:
    """One operator process; made inside the event loop that it uses."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._layout = Layout(options.data_dir.absolute())
        self._store = model_store(claims=self._layout.claims)
        accepted = read_accepted(self._layout.deployment)
        if accepted is None:
            raise NotFoundError(f"{self._layout.deployment} is missing: start it with `up`")
        self._changes = Changes()
        self._book = RecordBook(self._layout.processes)
        leash = os.environ.get(LEASH_VARIABLE)
        self._runtime = ProcessRuntime(
            self._layout,
            self._book,
            leash=None if leash is None else int(leash),
            on_change=self._component_changed,
        )
        self._ports, self._port = self._chosen_ports()
        status_file = StatusFile(self._layout.status)
        self._inference = GrpcInference("inference", Peer(f"{HOST}:{self._ports.control}"))
        self._feed = CheckpointFeed(
            Peer(f"{HOST}:{self._ports.trainer}"), lambda: self._reconciler.status.queue.sequence
        )
        url_file = options.notify_url_file
        self._webhook = None if url_file is None else Webhook(url_file)
        self._reconciler = Reconciler(
            self._generation(accepted.generation, accepted.deployment),
            status_file.load(),
            store=status_file,
            fleet=LocalFleet(self._inference, self._feed, self._runtime),
            on_change=self._status_changed,
            reports=reporting(
                self._feed.keep_record,
                self._webhook,
                on_sent=lambda: self._reconciler.wake(),
            ),
        )
        self._published = PublishedDrafts(models_folder(accepted.deployment, self._layout))
        self._prune_due = asyncio.Event()
        # The arguments of the last prune.
        self._pruned: Housekeeping | None = None
        self._has_served = False
        self._refused = asyncio.Event()

    async def run(self) -> str:
        """Runs until SIGTERM, then stops the components before it returns.

        Returns why nothing can ever serve, with every component stopped as well; else "".
        """
        stop = stop_signal()
        reload = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, reload.set)
        server = GrpcServer(f"{HOST}:{self._port}", drain_seconds=_DRAIN_SECONDS)
        server.add(
            operator_pb2_grpc.add_OperatorServicer_to_server,
            OperatorServicer(
                self._reconciler,
                components=self._runtime.details,
                published=self._published,
                changes=self._changes,
            ),
        )
        # Before anyone asks: components that are not there yet would seem to have stopped.
        await self._runtime.apply(self._processes(self._reconciler.generation.deployment))
        await server.start([SERVICE])
        self._write_address()
        loops = [
            asyncio.create_task(self._reconciler.run()),
            asyncio.create_task(self._follow_checkpoints()),
            asyncio.create_task(self._follow_trainer()),
            asyncio.create_task(self._prune()),
            asyncio.create_task(self._reload(reload)),
        ]
        stopped = asyncio.create_task(stop.wait())
        refused = asyncio.create_task(self._refused.wait())
        # A loop that ends by itself is a bug: the guardian restarts the operator, which adopts the
        # components.
        await asyncio.wait((stopped, refused, *loops), return_when=asyncio.FIRST_COMPLETED)
        refusal = self._refusal() if self._refused.is_set() else ""
        if stop.is_set():
            # Before the loops end: inference waits until its last outcomes have been fetched.
            await self._runtime.stop_servers()
        for task in (stopped, refused, *loops):
            task.cancel()
        results = await asyncio.gather(*loops, return_exceptions=True)
        self._changes.close()
        await server.stop()
        if stop.is_set() or refusal:
            await self._runtime.stop()
        await self._reconciler.close()
        await self._inference.close()
        await self._feed.close()
        if self._webhook is not None:
            await self._webhook.close()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return refusal

    def _chosen_ports(self) -> tuple[Ports, int]:
        """The components' loopback ports and the operator's own, chosen once and recorded."""
        record = self._book.record
        running = self._running()
        if "inference" in running:
            running |= {"control"}
        if "trainer" in running:
            running |= {"meeting"}
        clients = frozenset({self._options.http_port, self._options.grpc_port})
        ports = chosen_ports(_KEPT_PORTS, record.ports, running, reserved=clients)
        self._book.keep_ports({**record.ports, **ports})
        components = Ports(
            http=self._options.http_port,
            grpc=self._options.grpc_port,
            control=ports["control"],
            buffer=ports["buffer"],
            trainer=ports["trainer"],
            engine=ports["engine"],
            meeting=ports["meeting"],
        )
        return components, ports["operator"]

    def _rank_ports(self, deployment: AuroraDeployment) -> dict[str, int]:
        names = rank_names(deployment)
        kept = self._book.record.ports
        others = frozenset(port for name, port in kept.items() if name not in names)
        ports = chosen_ports(names, kept, self._running(), reserved=others)
        if ports.items() - kept.items():
            self._book.keep_ports({**kept, **ports})
        return ports

    def _running(self) -> frozenset[str]:
        processes = self._book.record.processes
        return frozenset(name for name, each in processes.items() if adopted(each) is not None)

    def _generation(self, number: int, deployment: AuroraDeployment) -> Generation:
        initial = deployment.spec.draft.initial_checkpoint
        if initial is None:
            return Generation(number, deployment)
        manifest = read_manifest(self._store.fetch(initial.uri))
        draft = Draft(manifest.name, manifest.digest, initial.uri)
        return Generation(number, deployment, draft)

    def _processes(self, deployment: AuroraDeployment) -> tuple[ProcessSpec, ...]:
        ports = replace(self._ports, ranks=self._rank_ports(deployment))
        return desired_processes(deployment, self._layout, ports, python=sys.executable)

    def _write_address(self) -> None:
        is_native = self._reconciler.generation.deployment.spec.engine.type == "native"
        # Without a port of its own for clients' gRPC, whoever asks for the state asks there.
        grpc = self._options.grpc_port if is_native else self._ports.control
        content = {
            "address": f"{HOST}:{self._port}",
            "http": f"{HOST}:{self._options.http_port}",
            "grpc": f"{HOST}:{grpc}",
            "pid": os.getpid(),
        }
        write_file(self._layout.operator, json.dumps(content, indent=2).encode())

    def _component_changed(self) -> None:
        for detail in self._runtime.details():
            if detail.view.name == "inference":
                self._has_served |= detail.view.ready
            if self._is_refused(detail):
                self._refused.set()
        self._reconciler.wake()
        self._changes.notify()

    def _is_refused(self, detail: ComponentDetail) -> bool:
        """Whether nothing will ever serve."""
        serves = detail.view.name in ("engine", "inference")
        return serves and detail.refused and not self._has_served

    def _refusal(self) -> str:
        return next(
            f"{detail.view.name} cannot start: it {detail.view.message}"
            for detail in self._runtime.details()
            if self._is_refused(detail)
        )

    def _status_changed(self) -> None:
        self._prune_due.set()
        self._changes.notify()

    async def _follow_checkpoints(self) -> None:
        async for candidate in self._feed.checkpoints():
            self._reconciler.offer(candidate)

    async def _follow_trainer(self) -> None:
        async for view in self._feed.views():
            self._reconciler.observe_trainer(view)
            # It may have been restarted: it is told again.
            self._pruned = None
            self._prune_due.set()

    async def _prune(self) -> None:
        """Has the trainer prune, and tells it what it should know, whenever either changed."""
        while True:
            await self._prune_due.wait()
            self._prune_due.clear()
            status, generation = self._reconciler.status, self._reconciler.generation
            keep = generation.deployment.spec.model_store.keep
            wanted = housekeeping(keep, status, generation.initial)
            if wanted == self._pruned:
                continue
            try:
                await self._feed.prune(wanted)
            except UnavailableError:
                # It is suspended or restarting, and publishes nothing meanwhile.
                await asyncio.sleep(_PRUNE_RETRY_SECONDS)
                self._prune_due.set()
            else:
                self._pruned = wanted

    async def _reload(self, requested: asyncio.Event) -> None:
        """Reloads the manifest file on request, restarting the components that it changes."""
        while True:
            await requested.wait()
            requested.clear()
            try:
                deployment = read_manifest_file(self._options.manifest)
                check(deployment, self._layout, self._store)
                accepted = accept(self._layout.deployment, deployment)
            except AuroraError as error:
                fields: dict[str, object] = {"reason": str(error)}
                logger.error("manifest refused; keeping the current one", extra={"fields": fields})
                continue
            self._reconciler.generation = self._generation(accepted.generation, deployment)
            self._write_address()
            await self._runtime.apply(self._processes(deployment))
            self._reconciler.wake()
            fields = {"generation": accepted.generation}
            logger.info("manifest reloaded", extra={"fields": fields})


class LocalFleet:
    """The one inference of this machine, and its processes."""

    def __init__(self, inference: Inference, judge: Judge, runtime: ProcessRuntime) -> None:
        self._inference = inference
        self.judge = judge
        self._runtime = runtime
        self._names = frozenset({inference.name})

    @property
    def inferences(self) -> Sequence[Inference]:
        return (self._inference,)

    @property
    def expected(self) -> frozenset[str]:
        ready = any(view.ready and view.name == "inference" for view in self.components)
        return self._names if ready else frozenset()

    @property
    def existing(self) -> frozenset[str]:
        # Suspended, it has no process.
        exists = any(view.name == "inference" for view in self.components)
        return self._names if exists else frozenset()

    @property
    def components(self) -> tuple[ComponentView, ...]:
        return tuple(detail.view for detail in self._runtime.details())

    @property
    def problems(self) -> tuple[Problem, ...]:
        return ()

    @property
    def scale(self) -> Scale | None:
        return None
