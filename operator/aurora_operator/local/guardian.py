"""The process that a person starts: it outlives the operator and restarts it.

It holds the data directory's lock and the writing end of the leash. If it is killed, the leash
breaks, and the operator and every component end.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from aurora_common.durable import write_file
from aurora_common.errors import REFUSED, ConflictError, InvalidInputError, StorageError
from aurora_common.leash import LEASH_VARIABLE
from aurora_common.store.registry import model_store
from aurora_operator.adapters.webhook import read_url
from aurora_operator.domain.arguments import ENVIRONMENT
from aurora_operator.domain.manifest.document import load_document
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.local.backoff import Backoff
from aurora_operator.local.layout import Layout, prepared_layout
from aurora_operator.local.log_tail import last_error_line
from aurora_operator.local.narrator import Narrator, narrate, say, serving_lines
from aurora_operator.local.port import free_ports
from aurora_operator.local.preflight import check, check_ports
from aurora_operator.local.process import DRAIN_SECONDS, stop_recorded
from aurora_operator.local.record import RecordBook
from aurora_operator.local.state_file import accept

STDIN = Path("-")
# Three groups of components stop one after the other.
_OPERATOR_STOP_SECONDS = 3 * DRAIN_SECONDS + 5


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """`manifest` is reloaded on SIGUSR1; a guardian's port of 0 means any free one.

    A guardian's manifest `-` is standard input; its copy in the data directory is what is reloaded.
    `notify_url_file`: a file with the URL of a webhook for verdicts.
    """

    manifest: Path
    data_dir: Path
    http_port: int
    grpc_port: int
    notify_url_file: Path | None = None


def read_manifest_file(path: Path) -> AuroraDeployment:
    """The manifest in a file; StorageError if it cannot be read, ManifestError if invalid."""
    return parse_manifest(_text(path), str(path))


def _text(path: Path) -> str:
    name = "standard input" if path == STDIN else str(path)
    try:
        content = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
        return content.decode()
    except OSError as error:
        raise StorageError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StorageError(f"cannot read {name}: it is not UTF-8 text") from error


def guard(options: LocalOptions) -> int:
    """Runs the deployment until SIGTERM or SIGINT and returns the exit code; nothing runs on.

    SIGUSR1 reloads the manifest file. Raises AuroraErrors, with nothing started, if the manifest
    cannot run on this machine.
    """
    if options.http_port == options.grpc_port != 0:
        raise InvalidInputError(
            f"--http-port and --grpc-port are both {options.http_port}; each needs its own"
        )
    if options.notify_url_file is not None:
        read_url(options.notify_url_file)
    from_stdin = options.manifest == STDIN
    text = _text(options.manifest)
    source = "standard input" if from_stdin else str(options.manifest)
    deployment = parse_manifest(text, source)
    if ignored := load_document(text).ignored:
        say(f"ignoring objects of other kinds: {', '.join(ignored)}")
    layout = prepared_layout(options.data_dir)
    with _locked(layout):
        if from_stdin:
            write_file(layout.manifest, text.encode())
            options = replace(options, manifest=layout.manifest)
        check(deployment, layout, model_store(claims=layout.claims))
        accept(layout.deployment, deployment)
        return asyncio.run(_guard(options, deployment, layout))


async def _guard(options: LocalOptions, deployment: AuroraDeployment, layout: Layout) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # SIGHUP: the terminal is closed.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    # Processes that a killed guardian left behind have lost their leash: they end, and are not
    # adopted.
    await stop_recorded(RecordBook(layout.processes))
    http, grpc = _client_ports(options)
    check_ports(http=http, grpc=grpc)
    name = deployment.metadata.name
    say(f"starting {name}: target {deployment.spec.target.uri}, logs in {layout.logs}")
    if deployment.spec.suspend:
        say(f"{name} is suspended: nothing runs until spec.suspend is false")
    # A killed guardian's: nobody listens there any more.
    layout.operator.unlink(missing_ok=True)
    # A gateway has nothing to generate with.
    served = grpc if deployment.spec.engine.type == "native" else None
    attach = deployment.spec.engine.attach
    key_file = None if attach is None else attach.key_file
    narrator = Narrator(serving_lines(name, http=http, grpc=served, key_file=key_file))
    narrating = asyncio.create_task(narrate(layout, narrator))
    reading, writing = os.pipe()
    argv: tuple[str, ...] = (
        *(sys.executable, "-m", "aurora_operator", "run"),
        *("--manifest", str(options.manifest.absolute()), "--data-dir", str(layout.root)),
        *("--http-port", str(http), "--grpc-port", str(grpc)),
    )
    if (url_file := options.notify_url_file) is not None:
        argv += ("--notify-url-file", str(url_file.absolute()))
    try:
        return await _keep_running(argv, layout, leash=reading, stop=stop, on_stop=narrating.cancel)
    finally:
        narrating.cancel()
        await stop_recorded(RecordBook(layout.processes))
        layout.operator.unlink(missing_ok=True)
        os.close(writing)
        os.close(reading)


async def _keep_running(
    argv: tuple[str, ...],
    layout: Layout,
    *,
    leash: int,
    stop: asyncio.Event,
    on_stop: Callable[[], object],
) -> int:
    """Restarts the operator until `stop`, or until it exits with REFUSED."""
    backoff = Backoff()
    operator: asyncio.subprocess.Process | None = None

    def reload() -> None:
        if operator is not None and operator.returncode is None:
            operator.send_signal(signal.SIGUSR1)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, reload)
    while True:
        started_at = time.monotonic()
        operator = await _start_operator(argv, layout, leash)
        code = await _until_ended_or(stop, operator, on_stop)
        if stop.is_set():
            return 0
        cause = last_error_line(layout.log("operator"))
        if code == REFUSED:
            raise ConflictError(cause)
        backoff = backoff.after_exit(time.monotonic() - started_at)
        say(f"operator exited with code {code}" + (f": {cause}" if cause else "") + "; restarting")
        with suppress(TimeoutError):
            async with asyncio.timeout(backoff.delay_seconds):
                await stop.wait()
                return 0


async def _start_operator(
    argv: tuple[str, ...], layout: Layout, leash: int
) -> asyncio.subprocess.Process:
    # In a session of its own: Ctrl-C reaches the guardian alone, which stops things in order.
    with layout.log("operator").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **ENVIRONMENT, LEASH_VARIABLE: str(leash)},
            start_new_session=True,
            pass_fds=(leash,),
        )


async def _until_ended_or(
    stop: asyncio.Event, operator: asyncio.subprocess.Process, on_stop: Callable[[], object]
) -> int:
    """The operator's exit code; once `stop` is set, it is terminated, then killed."""
    ended = asyncio.create_task(operator.wait())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not ended.done():
        on_stop()
        say("stopping")
        with suppress(ProcessLookupError):
            operator.terminate()
        _, unfinished = await asyncio.wait((ended,), timeout=_OPERATOR_STOP_SECONDS)
        if unfinished:
            with suppress(ProcessLookupError):
                operator.kill()
    return await ended


def _client_ports(options: LocalOptions) -> tuple[int, int]:
    given = frozenset({options.http_port, options.grpc_port})
    first, second = free_ports(2, reserved=given)
    return options.http_port or first, options.grpc_port or second


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Locks the data directory; raises ConflictError naming the process that holds it."""
    try:
        file = layout.lock.open("a+")
    except OSError as error:
        raise StorageError(f"cannot open {layout.lock}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            raise ConflictError(
                f"{layout.root} is in use: an aurora with pid {pid} runs there; stop it first"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
