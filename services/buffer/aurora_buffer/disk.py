"""The disk of Redis' files: part of it is held back, so that a full one stops appends alone.

Redis refuses every write, even the one that makes room, while its append-only file cannot grow. The
process that runs Redis therefore keeps a file as a reserve, and gives it up once the disk is full:
that suffices for the trims and acknowledgements of what is stored. Meanwhile the buffer refuses
appends, until the disk has room again.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aurora_common.errors import StorageError

logger = logging.getLogger(__name__)

_RESERVE_BYTES = 32 << 20
_RESERVE_SHARE = 40
_POLL_SECONDS = 0.25
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Room:
    """The size of a file system, and how much of it is free."""

    total_bytes: int
    free_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """What is held back: 32 MiB, of a small disk one fortieth."""
        return min(_RESERVE_BYTES, self.total_bytes // _RESERVE_SHARE)


def room(folder: Path) -> Room:
    """The room on the folder's file system, for others than root; StorageError if unknown."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise StorageError(f"cannot look at the disk of {folder}: {error.strerror}") from error
    return Room(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def shortage(found: Room) -> str:
    """Why appends must be refused; empty if there is room for them."""
    needed = found.reserve_bytes * 3 // 2
    if found.free_bytes >= needed:
        return ""
    return (
        f"the disk of Redis is full: {_mib(found.free_bytes)} MiB of {_mib(found.total_bytes)} MiB "
        f"are free, {_mib(needed)} MiB are needed; what is stored is still delivered and trimmed"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.{0 if size_bytes >= 100 * _MIB else 1}f}"


class Reserve:
    """The reserve in a folder: given up while its disk is full, made anew afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "reserve"

    def adjust(self) -> None:
        """Does what the room on the disk asks for; never raises."""
        with suppress(OSError, StorageError):
            found = room(self._folder)
            if self._path.exists():
                if found.free_bytes < found.reserve_bytes // 4:
                    self._path.unlink()
                    logger.warning("disk full; gave up the reserve, so that Redis can go on")
            elif found.free_bytes >= 3 * found.reserve_bytes:
                self._make(found.reserve_bytes)

    def run(self, stop: threading.Event) -> None:
        """Adjusts it four times a second until `stop` is set."""
        while not stop.wait(_POLL_SECONDS):
            self.adjust()

    def _make(self, size_bytes: int) -> None:
        made = self._path.with_suffix(".made")
        try:
            with made.open("wb") as file:
                _allocate(file.fileno(), size_bytes)
            made.rename(self._path)
        except OSError:
            made.unlink(missing_ok=True)
            raise


def _allocate(descriptor: int, size_bytes: int) -> None:
    """Takes the blocks, which a hole in a file would not."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    for start in range(0, size_bytes, _MIB):
        os.write(descriptor, bytes(min(_MIB, size_bytes - start)))
