"""Becomes a command that dies with its parent: `python tethered.py COMMAND ARGUMENT…`.

A test run that is killed cannot clean up; on Linux the kernel does it. The thread that starts this
must live as long as the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PARENT = "AURORA_TETHER_PARENT"


def tethered(
    command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a command that is killed when this process ends; its output is appended to `log`."""
    around = {**os.environ, **(environment or {}), _PARENT: str(os.getpid())}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-ISs", __file__, *map(str, command)],
            env=around,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def end(process: subprocess.Popen[bytes], *, seconds: float = 5.0) -> None:
    """Terminates a process, and kills it if it does not exit."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _main(command: Sequence[str]) -> None:
    parent = int(os.environ.pop(_PARENT))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the request took effect.
    if os.getppid() == parent:
        os.execv(command[0], command)


if __name__ == "__main__":
    _main(sys.argv[1:])
