"""The trainer process: wires training thread, subscription, judge, ranks and gRPC server."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry, Counter

from aurora.trainer.v1 import judge_pb2_grpc, trainer_pb2_grpc
from aurora_common.admission import named_peers
from aurora_common.errors import ConflictError, StorageError
from aurora_common.exposition import metrics_served
from aurora_common.grpc_server import GrpcServer, stop_signal
from aurora_common.kept_running import kept_running
from aurora_common.lasting import LastingFailures
from aurora_common.tls import CertificateFolder
from aurora_trainer.assembly import assembled_trainer
from aurora_trainer.control.budget import Budget
from aurora_trainer.inbox import Inbox
from aurora_trainer.judge.comparison import Comparisons
from aurora_trainer.judge.judge import Judge
from aurora_trainer.judge.metrics import JudgeMetrics
from aurora_trainer.judge.reader import BufferReader
from aurora_trainer.judge.servicer import JUDGE_SERVICE, JudgeServicer
from aurora_trainer.loop import Schedule, TrainingLoop
from aurora_trainer.progress import Trigger
from aurora_trainer.ranks.coordinator import Coordinator
from aurora_trainer.ranks.store import hosted_store
from aurora_trainer.servicer import SERVICE, TrainerServicer
from aurora_trainer.settings import TrainSettings
from aurora_trainer.standing import Pace, StandingCollector
from aurora_trainer.subscription import BufferSubscription
from aurora_trainer.trainer import Trainer

logger = logging.getLogger(__name__)

# Together below the ten seconds in which a component must stop.
_LAST_STEP_SECONDS = 7.0
_FLUSH_SECONDS = 1.0
_DRAIN_SECONDS = 1.0


def train(settings: TrainSettings, certificates: CertificateFolder | None) -> int:
    """Trains until SIGTERM or SIGINT; returns the exit code.

    Raises AuroraErrors if it cannot start.
    """
    with _locked(settings.state), asyncio.Runner() as runner:
        ranks = None
        if settings.ranks_listen is not None:
            ranks = Coordinator(
                hosted_store(settings.ranks_listen),
                ranks=settings.ranks,
                timeout_seconds=settings.rank_timeout_seconds,
            )
        trainer = assembled_trainer(settings, ranks)
        registry = CollectorRegistry()
        registry.register(StandingCollector(lambda: trainer.standing))
        restarts = Counter(
            "aurora_trainer_task_restarts",
            "Times that a background task ended and was started again.",
            ["task"],
            registry=registry,
        )
        judge = Judge(
            BufferReader(settings.buffer, certificates=certificates),
            Comparisons(
                trainer.workplace.target,
                trainer.workplace.record_format,
                settings.claims,
                trainer.workplace.held_target,
                trainer.workplace.device,
            ),
            JudgeMetrics(registry),
        )
        with metrics_served(settings.metrics_listen, registry):
            return runner.run(_serve(settings, trainer, judge, ranks, certificates, restarts))


async def _serve(
    settings: TrainSettings,
    trainer: Trainer,
    judge: Judge,
    ranks: Coordinator | None,
    certificates: CertificateFolder | None,
    restarts: Counter,
) -> int:
    stop = stop_signal()
    inbox = Inbox()
    subscription = BufferSubscription(settings.buffer, inbox, certificates=certificates)
    writes = LastingFailures()
    trigger = Trigger(settings.min_new_trajectories, settings.min_interval_seconds)
    budget = Budget(settings.max_share_percent, began_at=time.monotonic())
    servicer = TrainerServicer(
        settings.models,
        lambda: trainer.standing,
        trigger,
        steps_per_round=settings.steps_per_round,
        pace=lambda: Pace(
            budget.max_share_percent,
            budget.share(time.monotonic()),
            budget.waits_seconds(time.monotonic()),
        ),
        problem=lambda: "; ".join(
            filter(
                None,
                (
                    subscription.problem,
                    judge.problem,
                    "" if ranks is None else ranks.problem,
                    *writes.lasting().values(),
                ),
            )
        ),
        on_stable=trainer.measure_against,
        on_verdicts=trainer.tell,
        is_target=trainer.workplace.target.is_named_by,
    )
    server = GrpcServer(
        settings.listen,
        drain_seconds=_DRAIN_SECONDS,
        admit=named_peers(settings.admit, has_tls=certificates is not None),
        certificates=certificates,
        health_address=settings.health_listen,
    )
    server.add(trainer_pb2_grpc.add_TrainerServicer_to_server, servicer)
    server.add(judge_pb2_grpc.add_JudgeServicer_to_server, JudgeServicer(judge))
    await server.start([SERVICE, JUDGE_SERVICE])
    loop = TrainingLoop(
        trainer,
        Schedule(trigger, settings.steps_per_round),
        source=inbox,
        listener=_LoopListener(asyncio.get_running_loop(), subscription, servicer),
        clock=_SystemClock(),
        failures=writes,
        budget=budget,
    )
    worker = _TrainingThread(loop, on_end=stop)
    worker.start()

    async def subscription_ended() -> None:
        restarts.labels("subscription").inc()
        await server.set_serving(False)

    async def judge_ended() -> None:
        # Training goes on, and nothing is judged for so long.
        restarts.labels("judge").inc()

    subscribing = asyncio.create_task(
        kept_running(
            "subscription",
            subscription.run,
            on_end=subscription_ended,
            on_steady=partial(server.set_serving, True),
        )
    )
    judging = asyncio.create_task(kept_running("judge", judge.run, on_end=judge_ended))
    if ranks is not None:
        ranks.start()
    await stop.wait()
    # The training thread may have ended by itself.
    await server.set_serving(False)
    # It would slow the current step down.
    await _end(judging)
    await judge.close()
    if ranks is not None:
        ranks.close()
    await worker.finish(_LAST_STEP_SECONDS)
    await _end(subscribing)
    with suppress(grpc.aio.AioRpcError, TimeoutError):
        async with asyncio.timeout(_FLUSH_SECONDS):
            await subscription.flush()
    await subscription.close()
    await servicer.close()
    await server.stop()
    return 0 if worker.succeeded else 1


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class _TrainingThread:
    """Runs the training loop beside the event loop; sets `on_end` when it ends."""

    def __init__(self, loop: TrainingLoop, *, on_end: asyncio.Event) -> None:
        self.succeeded = False
        self._loop = loop
        self._on_end = on_end
        self._events = asyncio.get_running_loop()
        self._stop = threading.Event()
        # A daemon, so that a slow step cannot keep the process alive.
        self._thread = threading.Thread(target=self._work, name="training", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def finish(self, timeout_seconds: float) -> None:
        """Lets the current step end and the state be saved, within the timeout."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, timeout_seconds)
        if self._thread.is_alive():
            logger.error("stopped mid-step; the step will be repeated from the saved state")

    def _work(self) -> None:
        try:
            self._loop.run(self._stop)
            self.succeeded = True
        except Exception:
            logger.exception("training failed")
        finally:
            self._events.call_soon_threadsafe(self._on_end.set)


class _LoopListener:
    """Forwards notifications from the training thread to the event loop."""

    def __init__(
        self,
        events: asyncio.AbstractEventLoop,
        subscription: BufferSubscription,
        servicer: TrainerServicer,
    ) -> None:
        self._events = events
        self._subscription = subscription
        self._servicer = servicer

    def durable(self, ids: Sequence[str]) -> None:
        self._events.call_soon_threadsafe(self._subscription.acknowledge, ids)

    def published(self) -> None:
        asyncio.run_coroutine_threadsafe(self._servicer.announce(), self._events)


class _SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the state folder; raises ConflictError if another trainer holds it.

    The state holds prompts, so the folder is closed to other users.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
        file = (folder / "lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ConflictError(f"another trainer uses the state in {folder}") from error
    except OSError as error:
        raise StorageError(f"cannot lock the state in {folder}: {error.strerror}") from error
    with file:
        yield
