"""A program that starts processes of its own, ended as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress

# Longer than the program takes to finish what it serves.
_END_SECONDS = 30.0
# Reads until the supervisor is gone. A vLLM that is only asked to stop may
# wait for ever for requests that its dead engine will not finish, and their clients with it.
_WATCHER = 'read -r _; kill -s KILL -- "-$0"'


def supervised(command: Sequence[str]) -> int:
    """Runs it until it ends, and ends whatever it leaves; returns its exit code.

    SIGTERM and SIGINT are passed on as SIGTERM; what still runs afterwards is killed, and so is the
    program if this process is. Call it in the main thread.
    """
    process: subprocess.Popen[bytes] | None = None

    def end(*_: object) -> None:
        if process is None:
            raise SystemExit(128 + signal.SIGTERM)
        with suppress(ProcessLookupError):
            process.terminate()
        overdue = threading.Timer(_END_SECONDS, _kill_group, (process.pid,))
        overdue.daemon = True
        overdue.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    process = subprocess.Popen(command, start_new_session=True)
    watcher = subprocess.Popen(
        ("/bin/sh", "-c", _WATCHER, str(process.pid)),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    code = process.wait()
    _kill_group(process.pid)
    watcher.kill()
    watcher.wait()
    # As a shell reports a signal.
    return code if code >= 0 else 128 - code


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
