"""`python -m aurora_inference.gateway …`: the wiring of one gateway process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aurora_common import leash, log
from aurora_common.errors import AuroraError, InvalidInputError, exit_code
from aurora_common.grpc_server import stop_signal, unless_stopped
from aurora_common.kept_running import kept_running
from aurora_common.store.model_store import ModelStore
from aurora_common.store.registry import model_store
from aurora_common.thread import in_background
from aurora_common.tls import CertificateFolder
from aurora_common.token import TokenFolder
from aurora_inference.gateway.capture import Captures
from aurora_inference.gateway.control import GatewayControl
from aurora_inference.gateway.engine_connection import EngineConnection, engine_session
from aurora_inference.gateway.ledger import Ledger
from aurora_inference.gateway.metrics import MetricsPage
from aurora_inference.gateway.plugin import Plugin, TargetShape
from aurora_inference.gateway.proxy import Behind, Proxy, ProxySettings
from aurora_inference.gateway.recorder import Recorder
from aurora_inference.gateway.server import DrainServer, ProxyServer
from aurora_inference.gateway.settings import Settings, parse_settings
from aurora_inference.grpc.control_server import ControlServer
from aurora_inference.grpc.control_servicer import ControlServicer
from aurora_inference.serving.metrics import TrajectoryCounts
from aurora_inference.slots.outcome_log import OutcomeLog
from aurora_inference.trajectory.completion import Completion
from aurora_inference.trajectory.sender import TrajectorySender
from aurora_model.config import read_config
from aurora_model.target import TargetIdentity, target_identity

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 2.0
_START_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Gateway:
    """The Backend of the operator's port."""

    engine: GatewayControl
    model_name: str
    max_context_tokens: int
    target_digest: str
    tokenizer_digest: str
    trajectories: TrajectoryCounts | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code.

    An error is one line on stderr.
    """
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    log.configure()
    leash.follow()
    try:
        asyncio.run(serve(settings))
    except AuroraError as error:
        sys.stderr.write(f"aurora_inference.gateway: {' '.join(str(error).split())}\n")
        return exit_code(error)
    return 0


async def serve(settings: Settings) -> None:
    """Binds its ports, waits for the engine, serves, and drains on a stop signal."""
    stop = stop_signal()
    tokens = None if settings.tokens is None else TokenFolder(settings.tokens)
    certificates = None if settings.tls is None else CertificateFolder(settings.tls)
    key = "" if settings.engine_key is None else _content(settings.engine_key)
    ledger = Ledger(OutcomeLog(uuid.uuid4().hex))
    operators: ControlServer[Gateway] | None = None
    if settings.control_listen is not None:
        operators = ControlServer(
            settings.control_listen, certificates, settings.admit, ControlServicer
        )
    async with engine_session() as session:
        # Or the engine checks the clients' own.
        sent_key = "" if settings.pass_authorization else key
        engine = EngineConnection(session, settings.engine, sent_key)
        proxy = Proxy(engine, _proxy_settings(settings), ledger, tokens)
        clients = ProxyServer(proxy, settings.http_listen, drain_seconds=settings.drain_seconds)
        drain = None
        if settings.drain_listen is not None:
            drain = DrainServer(clients, settings.drain_listen)
        running = _Running(settings, Plugin(session, settings.engine, key), ledger, certificates)
        try:
            if operators is not None:
                port = await operators.start(running.problem)
                logger.info("listening", extra={"fields": {"control_port": port}})
            if drain is not None:
                port = await drain.start()
                logger.info("listening", extra={"fields": {"drain_port": port}})
            port = await clients.start()
            logger.info("listening", extra={"fields": {"http_port": port}})
            await unless_stopped(stop, asyncio.create_task(running.start(proxy, operators)))
            await stop.wait()
        finally:
            await clients.stop()
            if operators is not None:
                await operators.stop()
            await running.stop()
            if drain is not None:
                await drain.stop()


class _Running:
    """Everything behind the ports."""

    def __init__(
        self,
        settings: Settings,
        plugin: Plugin,
        ledger: Ledger,
        certificates: CertificateFolder | None,
    ) -> None:
        self._settings = settings
        self._plugin = plugin
        self._ledger = ledger
        self._certificates = certificates
        self._control: GatewayControl | None = None
        self._sender: TrajectorySender | None = None
        self._captures: Captures | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def problem(self) -> str:
        """Why it does not serve yet."""
        return self._control.problem() if self._control is not None else "the target is being read"

    async def start(self, proxy: Proxy, operators: ControlServer[Gateway] | None) -> None:
        """Opens the ports once the engine serves the draft that it should."""
        settings, plugin, ledger = self._settings, self._plugin, self._ledger
        store = model_store(claims=settings.claims)
        identity, shape = await self._target(store)
        self._control = control = GatewayControl(
            plugin, store, ledger, target=identity, shape=shape, puts_back=settings.put_back
        )
        sender = None
        if settings.buffer is not None and identity is not None:
            self._sender = sender = TrajectorySender(
                str(settings.buffer),
                target_digest=identity.digest,
                tokenizer_digest=identity.tokenizer_digest,
                certificates=self._certificates,
            )
        self._tasks.append(asyncio.create_task(kept_running("engine health", control.watch)))
        reported = ""
        while problem := control.problem():
            if problem != reported:
                log.report(f"waiting for the engine: {problem}")
                reported = problem
            # No event: the next problem may come meanwhile.
            await asyncio.sleep(_START_POLL_SECONDS)
        models = await plugin.models()
        target = next((model for model in models if model.is_base), models[0])
        record = sender.record if sender is not None else _discard
        recorder = Recorder(record, ledger.admissions)
        self._captures = captures = Captures(plugin, recorder.record)
        self._tasks.append(asyncio.create_task(kept_running("captures", captures.run)))
        proxy.open(
            Behind(
                base_models=frozenset(model.name for model in models if model.is_base),
                problem=control.problem,
                metrics=MetricsPage(target.name, plugin, control, ledger, captures, sender),
                on_answer=partial(recorder.ended, captures.wait_for),
            )
        )
        if operators is not None:
            gateway = Gateway(
                engine=control,
                model_name=target.name,
                max_context_tokens=target.max_context_tokens,
                target_digest=identity.digest if identity else "",
                tokenizer_digest=identity.tokenizer_digest if identity else "",
                trajectories=sender,
            )
            await operators.open(gateway)
        logger.info("serving", extra={"fields": {"model": target.name}})

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._captures is not None:
            self._captures.flush()
        if self._control is not None:
            await self._control.stop()
        if self._sender is not None:
            await self._sender.stop(flush_seconds=_FLUSH_SECONDS)

    async def _target(self, store: ModelStore) -> tuple[TargetIdentity | None, TargetShape | None]:
        uri = self._settings.target
        if uri is None:
            return None, None
        log.report(f"reading the target {uri}")
        return await in_background(partial(_read_target, store, uri))


def _read_target(store: ModelStore, uri: str) -> tuple[TargetIdentity, TargetShape]:
    folder = store.fetch(uri)
    config = read_config(folder)
    shape = TargetShape(config.vocab_size, config.hidden_size, config.num_layers)
    return target_identity(folder), shape


def _proxy_settings(settings: Settings) -> ProxySettings:
    recorded = settings.buffer is not None
    return ProxySettings(
        opt_out_header=settings.opt_out_header,
        sample_percent=settings.sample_percent if recorded else 0,
        capture_percent=settings.capture_percent,
        max_inflight=settings.max_inflight,
        max_body_bytes=settings.max_body_mib << 20,
    )


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"--engine-key {path} cannot be read: {error}") from error


def _discard(_: Completion) -> None:
    """Records nothing: no buffer is configured."""


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # A thread may still be reading a checkpoint from storage that hangs.
    os._exit(code)
