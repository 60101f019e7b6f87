"""`python -m aurora_inference …`: the wiring of one inference process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aurora.inference.v1 import inference_pb2_grpc
from aurora_common import leash, log
from aurora_common.admission import Admission, all_of, only_bearers, only_methods
from aurora_common.errors import AuroraError, DeviceLostError, exit_code
from aurora_common.grpc_server import GrpcServer, stop_signal, unless_stopped
from aurora_common.kept_running import kept_running
from aurora_common.store.model_store import ModelStore
from aurora_common.store.registry import model_store
from aurora_common.thread import in_background
from aurora_common.tls import CertificateFolder
from aurora_common.token import TokenFolder
from aurora_inference.contract import EngineControl
from aurora_inference.grpc.control_server import ControlServer
from aurora_inference.grpc.control_servicer import SERVICE
from aurora_inference.grpc.servicer import CLIENT_METHODS, InferenceServicer
from aurora_inference.http.app import openai_app
from aurora_inference.http.server import HttpServer
from aurora_inference.serving.gate import Gate, Serving
from aurora_inference.serving.metrics import RequestMetrics
from aurora_inference.serving.text_service import ServedModel, TextService
from aurora_inference.settings import Settings, parse_settings
from aurora_inference.trajectory.completion import Completion
from aurora_inference.trajectory.sender import TrajectorySender

if TYPE_CHECKING:
    from aurora_inference.native.runner.target import Target
    from aurora_inference.native.worker import EngineWorker
    from aurora_model.folder import ModelFolder

logger = logging.getLogger(__name__)


# With the six seconds of a default drain, under the ten in which every component stops.
_ENGINE_STOP_SECONDS = 0.5
_FLUSH_SECONDS = 2.0
_HEALTH_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code.

    An error is one line on stderr.
    """
    # Before torch is imported: its idle threads must not spin, since the event loop and the
    # trainer need the processor too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    log.configure()
    leash.follow()
    try:
        asyncio.run(serve(settings))
    except AuroraError as error:
        sys.stderr.write(f"aurora_inference: {' '.join(str(error).split())}\n")
        return exit_code(error)
    return 0


async def serve(settings: Settings) -> None:
    """Binds all ports, loads the model, serves, and drains on a stop signal.

    If the signal comes before the model is loaded, its load thread is still running afterwards.
    """
    stop = stop_signal()
    gate = Gate[Serving]()
    tokens = None if settings.tokens is None else TokenFolder(settings.tokens)
    certificates = None if settings.tls is None else CertificateFolder(settings.tls)
    control = None
    if settings.control_listen is not None:
        control = ControlServer(
            settings.control_listen, certificates, settings.admit, InferenceServicer
        )
    http = HttpServer(
        openai_app(
            gate,
            opt_out_header=settings.opt_out_header,
            tokens=tokens,
            allowed_origins=settings.allowed_origins,
        ),
        host=settings.http_listen.host,
        port=settings.http_listen.port,
        drain_seconds=settings.drain_seconds,
    )
    grpc_server = GrpcServer(
        str(settings.grpc_listen),
        drain_seconds=settings.drain_seconds,
        admit=_client_admission(tokens),
    )
    grpc_server.add(inference_pb2_grpc.add_InferenceServicer_to_server, InferenceServicer(gate))
    loaded: Loaded | None = None
    await grpc_server.start([SERVICE], serving=False)
    try:
        if control is not None:
            port = await control.start()
            logger.info("listening", extra={"fields": {"control_port": port}})
        port = http.start()
        logger.info("listening", extra={"fields": {"http_port": port}})
        loaded = await unless_stopped(stop, asyncio.create_task(_load(settings, certificates)))
        if loaded is not None:
            loaded.worker.start()
            if control is not None:
                await control.open(loaded.serving)
            gate.open(loaded.serving)
            follow = partial(_follow_health, grpc_server, loaded.serving.engine)
            health = asyncio.create_task(kept_running("health", follow))
            logger.info("serving", extra={"fields": {"model": settings.model_name}})
            await unless_stopped(stop, asyncio.create_task(_first(http.ended(), loaded.lost)))
            health.cancel()
    finally:
        gate.close()
        await asyncio.gather(http.stop(), grpc_server.stop())
        if control is not None:
            await control.stop()
        if loaded is not None:
            await loaded.stop()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything behind the fronts."""

    serving: Serving
    worker: EngineWorker
    sender: TrajectorySender | None
    # Raises DeviceLostError once no request can be served any more.
    lost: asyncio.Future[None]

    async def stop(self) -> None:
        await asyncio.to_thread(self.worker.stop, drain_seconds=_ENGINE_STOP_SECONDS)
        if self.sender is not None:
            await self.sender.stop(flush_seconds=_FLUSH_SECONDS)


async def _follow_health(server: GrpcServer, engine: EngineControl) -> None:
    """Reports the clients' port as serving while the engine can decode."""
    serving = False
    while True:
        if serving == bool(engine.problem()):
            serving = not serving
            await server.set_serving(serving)
        await asyncio.sleep(_HEALTH_SECONDS)


def _client_admission(tokens: TokenFolder | None) -> Admission:
    """Who may call what on the clients' port: nobody commands drafts there."""
    reason = "is not served on the clients' port: call it on the control port"
    methods = only_methods(CLIENT_METHODS, reason)
    return methods if tokens is None else all_of(methods, only_bearers(tokens))


async def _load(settings: Settings, certificates: CertificateFolder | None) -> Loaded:
    started = time.monotonic()
    store = model_store(claims=settings.claims)
    log.report("importing torch")
    target, model = await in_background(partial(_load_target, settings, store))
    from aurora_inference.native.control import NativeControl
    from aurora_inference.native.launch import load_engine, request_defaults
    from aurora_inference.native.worker import EngineWorker

    identity = target.identity
    sender = None
    if settings.buffer is not None:
        sender = TrajectorySender(
            str(settings.buffer),
            target_digest=identity.digest,
            tokenizer_digest=identity.tokenizer_digest,
            certificates=certificates,
        )
    record = sender.record if sender is not None else _discard
    log.report("preparing the engine")
    engine = await in_background(partial(load_engine, target, settings, store, record))
    events = asyncio.get_running_loop()
    lost: asyncio.Future[None] = events.create_future()
    worker = EngineWorker(
        engine,
        max_inflight=settings.max_batch + settings.max_waiting,
        on_lost=partial(events.call_soon_threadsafe, partial(_end, lost)),
    )
    sampling, max_tokens = request_defaults(model, settings.generation_config)
    text = TextService(
        worker,
        model.tokenizer,
        ServedModel(
            name=settings.model_name,
            max_context_tokens=engine.max_context_tokens,
            vocab_size=identity.vocab_size,
            sample_percent=settings.sample_percent if sender is not None else 0,
            created_at_seconds=int(time.time()),
            sampling=sampling,
            max_tokens=max_tokens,
        ),
        RequestMetrics(settings.model_name),
    )
    control = NativeControl(engine, worker, store)
    fields = {"seconds": round(time.monotonic() - started, 1), "target": identity.digest}
    logger.info("loaded", extra={"fields": fields})
    serving = Serving(text, control, identity.digest, identity.tokenizer_digest, sender)
    return Loaded(serving, worker, sender, lost)


async def _first(*awaited: Awaitable[None]) -> None:
    """Waits for the first of them to end."""
    tasks = [asyncio.ensure_future(each) for each in awaited]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def _end(lost: asyncio.Future[None], error: DeviceLostError) -> None:
    # The engine's thread goes on until the process stops, and hears the same again.
    if not lost.done():
        lost.set_exception(error)


def _load_target(settings: Settings, store: ModelStore) -> tuple[Target, ModelFolder]:
    # Imports torch, which takes seconds: on this thread, so that a stop signal is heard meanwhile.
    from aurora_inference.native.launch import load_target

    log.report(f"loading the target {settings.target}")
    return load_target(settings, store)


def _discard(_: Completion) -> None:
    """Records nothing: no buffer is configured."""


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Finalizing the interpreter takes as long as all of the above, and aborts the process while
    # another thread is importing a library.
    os._exit(code)
