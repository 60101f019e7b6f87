"""Detects changes to a folder's files, such as a Secret's that a kubelet updates."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[tuple[str, int, int, int], ...]


def stamp(folder: Path) -> Stamp:
    """Changes whenever a file in the folder does. Raises OSError if the folder cannot be read.

    Cheap: opens no file. Follows links, since a Secret's files are links into a folder that is
    replaced as a whole; skips hidden entries, which are the kubelet's own.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        status = path.stat()
        found.append((path.name, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)
