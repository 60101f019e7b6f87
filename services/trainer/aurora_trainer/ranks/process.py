"""The process of a rank beside the trainer's."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import torch
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from aurora_common.errors import AuroraError
from aurora_common.exposition import metrics_served
from aurora_common.grpc_server import GrpcServer, stop_signal
from aurora_common.store.registry import model_store
from aurora_model.target import target_identity
from aurora_trainer.data.teacher import held_target
from aurora_trainer.ranks.worker import HeldTarget, Worker
from aurora_trainer.settings import RankSettings

logger = logging.getLogger(__name__)


def follow(settings: RankSettings) -> int:
    """Computes for the trainer until SIGTERM or SIGINT; returns the exit code.

    A step in progress is left to the trainer. Raises AuroraErrors if it cannot start.
    """
    target = None
    if settings.target is not None:
        folder = model_store(claims=settings.claims).fetch(settings.target)
        held = held_target(folder, torch.device("cpu"))
        target = HeldTarget(held, target_identity(folder).digest)
    return asyncio.run(_follow(settings, target))


async def _follow(settings: RankSettings, target: HeldTarget | None) -> int:
    stop = stop_signal()
    events = asyncio.get_running_loop()
    server = GrpcServer(settings.listen)
    await server.start([], serving=False)

    def joined(there: bool) -> None:
        asyncio.run_coroutine_threadsafe(server.set_serving(there), events)

    worker = Worker(
        settings.trainer,
        timeout_seconds=settings.rank_timeout_seconds,
        target=target,
        on_joined=joined,
    )
    thread = _Thread(worker, on_end=lambda: events.call_soon_threadsafe(stop.set))
    registry = CollectorRegistry()
    registry.register(_ShareCollector(lambda: worker.computed))
    with metrics_served(settings.metrics_listen, registry):
        thread.start()
        await stop.wait()
        await server.stop()
    if thread.error is not None:
        raise thread.error
    return 0


class _Thread(threading.Thread):
    """Runs the worker as a daemon: neither a step nor a wait keeps the process alive."""

    def __init__(self, worker: Worker, *, on_end: Callable[[], object]) -> None:
        super().__init__(name="rank", daemon=True)
        self.error: Exception | None = None
        self._worker = worker
        self._on_end = on_end

    def run(self) -> None:
        try:
            self._worker.run()
        except AuroraError as error:
            self.error = error
        except Exception as error:
            logger.exception("rank failed")
            self.error = error
        self._on_end()


class _ShareCollector(Collector):
    def __init__(self, computed: Callable[[], int]) -> None:
        self._computed = computed

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "aurora_trainer_shares", "Shares of steps computed for the trainer.", self._computed()
        )
