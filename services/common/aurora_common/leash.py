"""Ends this process when its supervisor dies, even by SIGKILL."""

from __future__ import annotations

import os
import signal
import threading

LEASH_VARIABLE = "AURORA_LEASH_FD"


def follow() -> None:
    """Sends this process SIGTERM once the supervisor is gone; does nothing without a leash.

    The leash is the read end of a pipe, an inherited descriptor numbered in `AURORA_LEASH_FD`; only
    the supervisor holds the write end.
    """
    descriptor = os.environ.get(LEASH_VARIABLE)
    if descriptor is None:
        return

    def wait(fd: int) -> None:
        os.read(fd, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, args=(int(descriptor),), name="leash", daemon=True).start()
