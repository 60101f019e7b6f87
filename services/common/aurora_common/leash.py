"""Ends this process when the holder of the other end of a pipe is gone, even killed."""

from __future__ import annotations

import os
import signal
import threading

LEASH_VARIABLE = "AURORA_LEASH_FD"


def follow() -> None:
    """Sends this process SIGTERM once the leash's holder is gone; nothing where there is no leash.

    The leash is the read end of a pipe, inherited under the number in `AURORA_LEASH_FD`, of which
    only the holder has the write end.
    """
    descriptor = os.environ.get(LEASH_VARIABLE)
    if descriptor is None:
        return

    def wait(fd: int) -> None:
        os.read(fd, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, args=(int(descriptor),), name="leash", daemon=True).start()
