"""The operator of a cluster as a process: waits for the lease, leads, and exits if it is lost."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from aurora_common.grpc_server import stop_signal
from aurora_operator.adapters.kubeconfig import load_configuration
from aurora_operator.adapters.kubernetes import KubernetesApi
from aurora_operator.adapters.lease import Election
from aurora_operator.adapters.webhook import Webhook
from aurora_operator.cluster.endpoint import METRICS, Answer, Endpoint
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.operator import ClusterOperator
from aurora_operator.domain.objects.metadata import MANAGER
from aurora_operator.domain.objects.setting import Setting

logger = logging.getLogger(__name__)

_CONNECTIONS = 12
# How long the watches' thread waits for the interpreter, instead of 5 ms.
_SWITCH_SECONDS = 0.0005
# Generation-0 GC threshold.
_COLLECT_AFTER = 5_000
# Less than the lease's renewal deadline.
_LEASE_CALL_SECONDS = 5.0
_HEARTBEAT_SECONDS = 2.0
_STALLED_SECONDS = 30.0
_STOP_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """`namespaces`: where deployments are run; empty: everywhere.

    `identity`: unique among the running operators. Replicas of one installation share the Lease,
    by which one of them leads. `notify_url_file`: a file with the URL of a webhook for verdicts.
    """

    setting: Setting
    lease_namespace: str
    identity: str
    lease_name: str = MANAGER
    namespaces: tuple[str, ...] = ()
    health_listen: str = "127.0.0.1:8080"
    metrics_listen: str = "127.0.0.1:9090"
    kubeconfig: Path | None = None
    notify_url_file: Path | None = None


class ClusterProcess:
    """Made inside the event loop that it uses; `run` once."""

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self._metrics = Metrics()
        configuration = load_configuration(options.kubeconfig)
        # The lease must not wait behind other requests.
        self._lease_api = KubernetesApi(
            configuration, connections=1, timeout_seconds=_LEASE_CALL_SECONDS
        )
        self._api = KubernetesApi(configuration, connections=_CONNECTIONS)
        url_file = options.notify_url_file
        self._webhook = (
            None
            if url_file is None
            else Webhook(url_file, on_result=self._metrics.count_notification)
        )
        self._operator = ClusterOperator(
            configuration,
            self._api,
            namespaces=options.namespaces,
            setting=options.setting,
            identity=options.identity,
            installation=f"{options.lease_namespace}/{options.lease_name}",
            metrics=self._metrics,
            webhook=self._webhook,
        )
        self._leads = False
        self._heartbeat_at = time.monotonic()

    async def run(self) -> int:
        """Runs until SIGTERM and returns the exit status, which is not 0 if the operator failed.

        If the lease is lost, the process exits at once.
        """
        stop = stop_signal()
        endpoints = [
            Endpoint(
                self._options.health_listen, {"/healthz": self._healthz, "/readyz": self._readyz}
            ),
            Endpoint(self._options.metrics_listen, {"/metrics": self._metrics_answer}),
        ]
        tasks = [
            asyncio.create_task(self._lead(), name="lead"),
            asyncio.create_task(self._keep_heartbeat(), name="heartbeat"),
        ]
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((stopped, *tasks), return_when=asyncio.FIRST_COMPLETED)
        failed = [task.exception() for task in tasks if task.done()]
        for error in failed:
            logger.error("the operator failed", exc_info=error)
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        for endpoint in endpoints:
            endpoint.close()
        if self._webhook is not None:
            await self._webhook.close()
        await self._api.close()
        await self._lease_api.close()
        return 1 if failed else 0

    async def _lead(self) -> None:
        """Waits for the lease, operates while it is held, and releases it at the end."""
        election = Election(
            self._lease_api,
            namespace=self._options.lease_namespace,
            name=self._options.lease_name,
            identity=self._options.identity,
        )
        await election.acquire()
        self._leads = True
        self._metrics.leader.set(1)
        holding = asyncio.create_task(_hold(election))
        try:
            await self._operator.run()
        finally:
            # A concurrent renewal could undo the release, or find the lease released.
            holding.cancel()
            # Another operator may only begin once this one has stopped acting.
            await election.release()

    async def _keep_heartbeat(self) -> None:
        while True:
            self._heartbeat_at = time.monotonic()
            self._operator.heartbeat()
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    def _healthz(self) -> Answer:
        if time.monotonic() - self._heartbeat_at > _STALLED_SECONDS:
            return Answer(503, b"the event loop is stuck\n")
        if self._leads and not self._operator.is_well:
            return Answer(503, b"nothing reconciled for three minutes\n")
        return Answer(200, b"ok\n")

    def _readyz(self) -> Answer:
        if self._leads and not self._operator.primed:
            return Answer(503, b"caches not primed yet\n")
        if overlaps := self._operator.overlaps:
            found = sorted(f"{place} by {other}" for place, other in overlaps.items())
            return Answer(503, f"managed by another operator: {', '.join(found)}\n".encode())
        return Answer(200, b"ok\n")

    def _metrics_answer(self) -> Answer:
        return Answer(200, self._metrics.exposition(), METRICS)


async def _hold(election: Election) -> None:
    """Renews the lease, and exits the process if it cannot.

    At once, without cleanup: another operator may lead already, so nothing in progress may go on.
    """
    try:
        await election.hold()
    except Exception as error:
        logger.critical("lease lost; exiting", exc_info=error)
        sys.stderr.flush()
        os._exit(1)


async def operate(options: ClusterOptions) -> int:
    """Runs one operator process to its end and returns its exit status."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Imported modules live as long as the process, and reference cycles are rare here: collecting
    # cost more than it freed.
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    return await ClusterProcess(options).run()
