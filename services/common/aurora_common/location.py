"""Where models lie: `file://` paths, and `pvc://claim/path` under a folder of mounted claims."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from aurora_common.errors import InvalidInputError


def local_path(uri: str, *, claims: Path | None = None) -> Path:
    """The folder that a model URI names on this machine.

    `claims`: the folder in which each PersistentVolumeClaim is mounted under its name. Raises
    InvalidInputError for another scheme or a path that leaves its claim.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Path(unquote(parts.path))
    if parts.scheme == "pvc" and parts.netloc and claims is not None:
        claim = (claims / parts.netloc).resolve()
        path = (claim / unquote(parts.path).lstrip("/")).resolve()
        if path.is_relative_to(claim):
            return path
    raise InvalidInputError(f"{uri!r} is not a model URI: use file:///folder or pvc://claim/folder")
