"""A component's process, started by this operator or an earlier one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from aurora_common.errors import StorageError, UnavailableError
from aurora_operator.local.record import ProcessRecord

# The process waits for a line before it becomes the component. An operator that is killed before it
# recorded the pid never sends one, so no unknown component runs. It has a session of its own: a
# Ctrl-C in the terminal is the guardian's to handle.
_GATE = 'read -r go && exec "$@" </dev/null'
# Start times that differ by less are equal: the kernel counts hundredths of a second from boot.
_CREATE_TIME_TOLERANCE_SECONDS = 0.5
_ROTATE_BYTES = 16 << 20


class Child:
    """A process with its identity; `popen` only if this operator is its parent."""

    def __init__(
        self, pid: int, create_time: float, popen: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.pid = pid
        self.create_time = create_time
        self._popen = popen

    def is_alive(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is None
        return _is_running(self.pid, self.create_time)

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it; None while it runs, or if this operator is not its parent."""
        return None if self._popen is None else self._popen.poll()

    def release(self) -> None:
        """Lets a process made by `gated` become its component."""
        assert self._popen is not None
        assert self._popen.stdin is not None
        # It may have exited already, which the supervisor notices.
        with suppress(BrokenPipeError), self._popen.stdin as gate:
            gate.write(b"go\n")

    def terminate(self) -> None:
        """Sends SIGTERM: it drains and exits."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL to it and its process group."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def gated(
    argv: tuple[str, ...], *, log: Path, environment: Mapping[str, str], leash: int | None
) -> Child:
    """Starts a process that waits for `release` to become `argv`, its output appended to `log`.

    `leash`: the descriptor of the leash's reading end, which it inherits.
    """
    try:
        _rotate(log)
        with log.open("ab") as output:
            popen = subprocess.Popen(
                ("/bin/sh", "-c", _GATE, argv[0], *argv),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment),
                start_new_session=True,
                pass_fds=() if leash is None else (leash,),
            )
    except OSError as error:
        raise StorageError(f"cannot start {argv[0]}: {error.strerror} ({log})") from error
    try:
        create_time = psutil.Process(popen.pid).create_time()
    except psutil.Error as error:
        popen.kill()
        popen.wait()
        raise UnavailableError(f"{argv[0]} exited at once") from error
    return Child(popen.pid, create_time, popen)


def adopted(record: ProcessRecord) -> Child | None:
    """The process of a record, if it still runs."""
    if _is_running(record.pid, record.create_time):
        return Child(record.pid, record.create_time)
    return None


def _is_running(pid: int, create_time: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - create_time) < _CREATE_TIME_TOLERANCE_SECONDS
        # A zombie has ended, though its parent has not waited for it.
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _rotate(log: Path) -> None:
    """Keeps one earlier log, which bounds the disk space."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > _ROTATE_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
