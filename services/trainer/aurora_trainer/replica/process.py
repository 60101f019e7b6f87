"""The process of a gradient replica, which computes for a trainer and keeps no state."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from aurora.trainer.v1 import gradient_pb2_grpc
from aurora_common.admission import named_peers
from aurora_common.exposition import metrics_served
from aurora_common.grpc_server import GrpcServer, stop_signal
from aurora_common.tls import CertificateFolder
from aurora_trainer.replica.servicer import GRADIENT_SERVICE, GradientServicer
from aurora_trainer.settings import GradientSettings

logger = logging.getLogger(__name__)

# Together below the ten seconds in which a component must stop.
_LAST_SHARE_SECONDS = 7.0
_DRAIN_SECONDS = _LAST_SHARE_SECONDS + 1.0


def serve(settings: GradientSettings, certificates: CertificateFolder | None) -> None:
    """Serves until SIGTERM or SIGINT; raises AuroraErrors if it cannot start."""
    servicer = GradientServicer()
    registry = CollectorRegistry()
    registry.register(_GradientCollector(lambda: servicer.computed))
    with metrics_served(settings.metrics_listen, registry):
        asyncio.run(_serve(settings, servicer, certificates))
    if servicer.is_computing:
        logger.warning("stopped mid-share; replica 0 will compute it")
        logging.shutdown()
        # Python would abort while torch computes on another thread, and there is nothing to save.
        os._exit(0)


async def _serve(
    settings: GradientSettings, servicer: GradientServicer, certificates: CertificateFolder | None
) -> None:
    stop = stop_signal()
    server = GrpcServer(
        settings.listen,
        drain_seconds=_DRAIN_SECONDS,
        admit=named_peers(settings.admit, has_tls=certificates is not None),
        certificates=certificates,
        health_address=settings.health_listen,
    )
    server.add(gradient_pb2_grpc.add_GradientServicer_to_server, servicer)
    await server.start([GRADIENT_SERVICE])
    await stop.wait()
    asyncio.get_running_loop().call_later(_LAST_SHARE_SECONDS, servicer.give_up)
    await server.stop()


class _GradientCollector(Collector):
    def __init__(self, computed: Callable[[], int]) -> None:
        self._computed = computed

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "aurora_trainer_gradients", "Shares of steps computed for replica 0.", self._computed()
        )
