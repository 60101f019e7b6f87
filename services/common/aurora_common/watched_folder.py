"""A folder whose files another program replaces while we run, as a kubelet does with Secrets."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[tuple[str, int, int, int], ...]


def stamp(folder: Path) -> Stamp:
    """Changes whenever a file of the folder does; OSError where the folder cannot be read.

    Cheap: no file is opened. A Secret's files are links into a folder that is replaced as a whole,
    so links are followed. Hidden entries are the kubelet's own.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        status = path.stat()
        found.append((path.name, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
