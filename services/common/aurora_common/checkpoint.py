"""A checkpoint's manifest, `aurora.json` beside its weights, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from aurora_common.errors import CheckpointError

MANIFEST = "aurora.json"
# Larger than any manifest, small enough that a wrong path cannot fill memory.
_MANIFEST_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CheckpointManifest:
    """The content of `aurora.json`.

    `digest` covers every other file of the checkpoint, names included. `kind` is the draft kind
    that its files are laid out for, standalone if absent. `trained_from` and `trained_through`
    are the range of the trajectory stream that it was trained on.
    """

    name: str
    digest: str
    target_digest: str
    tokenizer_digest: str
    kind: str = "standalone"
    parent_digest: str = ""
    objective: str = ""
    trained_from: str = ""
    trained_through: str = ""
    created_at_ms: int = 0
    metrics: dict[str, float] | None = None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode() + b"\n"


def folder_digest(folder: Path) -> str:
    """`sha256:<hex>` over the names and contents of a folder's files, except `aurora.json`.

    It is the SHA-256 of the lines `<sha256 of the file>  <name>`, sorted by name, as `sha256sum`
    prints them, so it can be checked without Aurora.
    """
    return listing_digest(file_digests(folder))


def file_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder by its name, in hex, except `aurora.json`."""
    files = [path for path in folder.iterdir() if path.name != MANIFEST and path.is_file()]
    return {path.name: file_digest(path) for path in files}


def listing_digest(digests: Mapping[str, str]) -> str:
    """The `folder_digest` of a folder with these files."""
    lines = [f"{digests[name]}  {name}\n" for name in sorted(digests)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> CheckpointManifest:
    """Reads `aurora.json`; raises CheckpointError if it is absent or malformed."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MANIFEST_LIMIT_BYTES:
            raise CheckpointError(f"{path} is larger than {_MANIFEST_LIMIT_BYTES} bytes")
        content: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    known = {field.name for field in fields(CheckpointManifest)}
    if not isinstance(content, dict) or not known.issuperset(content):
        raise CheckpointError(f"{path} must be an object with the keys {', '.join(sorted(known))}")
    try:
        return CheckpointManifest(**content)
    except TypeError as error:
        raise CheckpointError(f"{path} lacks a key: {error}") from error


def verified_manifest(folder: Path, *, digest: str = "") -> CheckpointManifest:
    """Reads `aurora.json` and verifies the files against its digest.

    `digest`: what the caller expects; empty accepts the manifest's. Raises CheckpointError naming
    the checkpoint and both digests if they differ.
    """
    manifest = read_manifest(folder)
    actual = folder_digest(folder)
    for expected, source in ((manifest.digest, MANIFEST), (digest or actual, "the caller")):
        if expected != actual:
            raise CheckpointError(
                f"checkpoint {folder.name} has digest {actual}, but {source} says {expected}"
            )
    return manifest
