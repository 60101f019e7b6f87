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
        return Path(unquote(parts.path))


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
        return folder
