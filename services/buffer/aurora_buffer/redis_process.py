"""Runs a redis-server whose files are private, and starts it empty if they are damaged."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from aurora_buffer.disk import Reserve
from aurora_buffer.redis_server import RedisOptions, redis_arguments, redis_binary
from aurora_common import leash
from aurora_common.errors import ConflictError, InvalidInputError, StorageError

logger = logging.getLogger(__name__)

# The shortest limit of a socket's path, macOS'.
MAX_SOCKET_BYTES = 103

# A damaged file beyond this is deleted rather than kept: new trajectories need the room.
DAMAGED_KEPT_BYTES = 1 << 30

# An earlier redis-server may still be stopping.
_LOCK_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.1

_READY = b"ready to accept connections"
# What Redis 6.2 and 7 say before they give up loading, which may also be by a crash.
_DAMAGE = (
    b"reading the append only file",
    b"AOF loading aborted",
    b"Internal error in RDB reading",
    b"Unexpected EOF reading RDB file",
    b"Wrong RDB checksum",
    b"AOF MANIFEST FILE ERROR",
    b"length. stat: No such file or directory",
    b"REDIS BUG REPORT",
)
_NO_DAMAGE = b"Out Of Memory"
_PR_SET_PDEATHSIG = 1


def run_redis(options: RedisOptions) -> int:
    """Runs redis-server until it ends, with its log on stderr; returns its exit code.

    SIGTERM and SIGINT, and the end of the leash, stop it. If it cannot load its files because they
    are damaged, they are set aside and it starts again without.

    Raises NotFoundError without a redis-server, InvalidInputError for a socket with too long a
    path, StorageError if a folder cannot be written, and ConflictError if another redis-server uses
    it.
    """
    binary = redis_binary()
    size = len(os.fsencode(options.socket))
    if size > MAX_SOCKET_BYTES:
        raise InvalidInputError(
            f"the path {options.socket} has {size} bytes: a socket's may have {MAX_SOCKET_BYTES}"
        )
    # Of all files that Redis makes, too.
    os.umask(0o077)
    for folder in (options.folder, options.socket.parent):
        _make(folder)
    with _locked(options.folder) as lock:
        for folder in (options.folder, options.socket.parent):
            _close_to_others(folder)
        _remove_leftovers(options.folder)
        reserve, ended = Reserve(options.folder), threading.Event()
        # Before Redis starts, which may need it.
        reserve.adjust()
        threading.Thread(target=reserve.run, args=(ended,), daemon=True).start()
        server = _Server(redis_arguments(binary, options), lock)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.stop)
        leash.follow()
        if server.run():
            _set_aside(options.folder)
            server.run()
        ended.set()
    return server.exit_code


class _Server:
    """A redis-server that ends with this process, even if that is killed (on Linux)."""

    def __init__(self, arguments: Sequence[str], lock: int) -> None:
        self.exit_code = 0
        self._arguments = arguments
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        self._stopping = True
        if self._process is not None:
            self._process.terminate()

    def run(self) -> bool:
        """Runs it until it ends; returns whether it gave up because its files are damaged."""
        if self._stopping:
            return False
        self._process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(self._lock,),
            preexec_fn=self._follow_parent,
        )
        if self._stopping:
            self._process.terminate()
        damaged = _relayed(self._process)
        code = self._process.wait()
        self.exit_code = code if code >= 0 else 128 - code
        return damaged and not self._stopping

    def _follow_parent(self) -> None:
        if self._prctl is not None:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _relayed(process: subprocess.Popen[bytes]) -> bool:
    """Copies Redis' log to stderr; returns whether it says that the files cannot be loaded."""
    assert process.stdout is not None
    loading, damaged = True, False
    for line in process.stdout:
        # A full disk, for example, must not end Redis.
        with suppress(OSError):
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
        if _READY in line or _NO_DAMAGE in line:
            loading = damaged = False
        damaged = damaged or (loading and any(words in line for words in _DAMAGE))
    return damaged


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}") from error
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write in {folder}: {error.strerror}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Holds the folder's lock, which redis-server inherits; yields its descriptor."""
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        file = (folder / "lock").open("w")
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ConflictError(f"another redis-server uses {folder}") from error
                time.sleep(_LOCK_POLL_SECONDS)
    except OSError as error:
        raise StorageError(f"cannot lock {folder}: {error.strerror}") from error
    with file:
        yield file.fileno()


def _close_to_others(folder: Path) -> None:
    """Takes what other users may do with the folder and what is in it.

    What belongs to another user, such as a volume's root folder, stays as it is.
    """
    for path in (folder, *folder.rglob("*")):
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid == os.geteuid() and not path.is_symlink() and mode & 0o077:
            path.chmod(mode & ~0o077)


def _remove_leftovers(folder: Path) -> None:
    """Removes what rewrites of the append-only file left when Redis was killed."""
    for path in (*folder.glob("temp-*.aof"), *folder.glob("appendonlydir/temp-*.aof")):
        path.unlink(missing_ok=True)


def _set_aside(folder: Path) -> None:
    kept = folder / "damaged"
    shutil.rmtree(kept, ignore_errors=True)
    found = list(folder.glob("appendonly*"))
    size = sum(path.stat().st_size for each in found for path in (each, *each.rglob("*")))
    if size <= DAMAGED_KEPT_BYTES:
        # On a full disk it is not kept.
        with suppress(OSError):
            kept.mkdir()
            for path in found:
                path.rename(kept / path.name)
    for path in folder.glob("appendonly*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    logger.error(
        "the append-only file is damaged: its trajectories are lost, and Redis starts empty",
        extra={"fields": {"bytes": size, "kept_in": str(kept) if kept.exists() else ""}},
    )
