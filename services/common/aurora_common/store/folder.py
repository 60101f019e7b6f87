"""Models in mounted folders: file:///folder and pvc://claim/folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from aurora_common.errors import InvalidInputError


class FileStore:
    """file:///folder: any folder of this machine."""

    def fetch(self, uri: str) -> Path:
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise InvalidInputError(f"{uri!r} is not a model URI: use file:///folder")
        return _regular(Path(unquote(parts.path)), Path("/"), uri)


class ClaimStore:
    """pvc://claim/folder: each PersistentVolumeClaim is mounted under its name in `claims`."""

    def __init__(self, claims: Path | None) -> None:
        self._claims = claims

    def fetch(self, uri: str) -> Path:
        if self._claims is None:
            raise InvalidInputError(f"{uri!r} needs --claims, the folder where claims are mounted")
        parts = urlsplit(uri)
        claim = (self._claims / parts.netloc).resolve()
        folder = (claim / unquote(parts.path).lstrip("/")).resolve()
        if parts.netloc in ("", ".", "..") or not folder.is_relative_to(claim):
            raise InvalidInputError(f"{uri!r} is not a model URI: use pvc://claim/folder")
        return _regular(folder, claim, uri)


def _regular(folder: Path, root: Path, uri: str) -> Path:
    """`folder`, unless it holds what is not a regular file of `root`: reading a FIFO or a device
    might never end, and a link might lead to what others keep there."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        file = entry.resolve()
        kept_here = file.is_relative_to(root) and (file.is_file() or file.is_dir())
        # What has vanished meanwhile is not there: checkpoints are published by renaming.
        if not kept_here and (entry.is_symlink() or entry.exists()):
            raise InvalidInputError(f"{entry.name!r} in {uri!r} is not a regular file of its store")
    return folder
