"""Reads a checkpoint's files: only inside the store, only regular ones, each exactly once.

What is digested is what is loaded: a file that changes in between cannot slip through.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from aurora_vllm.refusal import RefusedError, bad_checkpoint

MANIFEST = "aurora.json"
CONFIG = "config.json"
WEIGHTS_SUFFIX = ".safetensors"
_MANIFEST_LIMIT_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 24
_MOST_BESIDE = 10_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `aurora.json` says that an engine needs; empty strings if it does not."""

    name: str = ""
    digest: str = ""
    parent_digest: str = ""
    target_digest: str = ""
    tokenizer_digest: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory, verified: `weights` are the contents of its safetensors by name."""

    folder: Path
    digest: str
    manifest: Manifest
    config: Mapping[str, Any]
    weights: Mapping[str, bytes]


def folder_in_store(path: str, store: Path | None) -> Path:
    """The folder that `path`, absolute or relative to the store, names; raises RefusedError."""
    if store is None:
        raise RefusedError(
            "this engine takes no checkpoints: AURORA_VLLM_STORE does not name their folder",
            status=400,
            code="no_store",
        )
    root = store.resolve()
    folder = (root / path).resolve()
    if folder == root or not folder.is_relative_to(root):
        raise RefusedError(
            f"{path!r} is not a folder inside the store {root}",
            status=400,
            code="outside_store",
            param="path",
        )
    if not folder.is_dir():
        raise bad_checkpoint(f"there is no folder {folder}")
    return folder


def read_checkpoint(folder: Path, digest: str, store: Path) -> Checkpoint:
    """Reads a checkpoint whole and verifies it; raises RefusedError naming file and reason."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
        contents, digests = {}, {}
        for name in names:
            kept = name.endswith(WEIGHTS_SUFFIX) or name in (CONFIG, MANIFEST)
            limit = _MANIFEST_LIMIT_BYTES if name == MANIFEST else None
            content, file_digest = _read_regular(folder / name, store, keep=kept, limit=limit)
            if kept:
                contents[name] = content
            if name != MANIFEST:
                digests[name] = file_digest
    except OSError as error:
        raise bad_checkpoint(f"cannot read {error.filename or folder}: {error.strerror}") from error
    actual = listing_digest(digests)
    manifest = parse_manifest(folder, contents.get(MANIFEST))
    for expected, source in ((manifest.digest or actual, MANIFEST), (digest, "the call")):
        if expected != actual:
            raise RefusedError(
                f"checkpoint {folder.name} has digest {actual}, but {source} says {expected}",
                status=400,
                code="wrong_digest",
                param="digest",
            )
    weights = {name: each for name, each in contents.items() if name.endswith(WEIGHTS_SUFFIX)}
    if not weights:
        raise bad_checkpoint(f"{folder} has no {WEIGHTS_SUFFIX} file")
    config = _parse_object(folder / CONFIG, contents.get(CONFIG))
    return Checkpoint(folder, actual, manifest, config, weights)


def manifests_beside(folder: Path, store: Path) -> Iterator[Manifest]:
    """Of the checkpoints in the same folder of the store, those that can be read."""
    with suppress(OSError):
        for beside in islice(folder.parent.iterdir(), _MOST_BESIDE):
            with suppress(OSError, RefusedError):
                content, _ = _read_regular(
                    beside / MANIFEST, store, keep=True, limit=_MANIFEST_LIMIT_BYTES
                )
                yield parse_manifest(beside, content)


def listing_digest(digests: Mapping[str, str]) -> str:
    """`sha256:<hex>` of the lines `<sha256>  <name>`, sorted by name, as `sha256sum` prints them.

    `digests`: the SHA-256 of each file but `aurora.json` by its name, in hex.
    """
    lines = [f"{digests[name]}  {name}\n" for name in sorted(digests)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def folder_digest(folder: Path) -> str:
    """The digest of the checkpoint in a trusted folder, symbolic links followed; raises OSError."""
    digests = {}
    for path in folder.iterdir():
        if path.name != MANIFEST and path.is_file():
            with path.open("rb") as file:
                digests[path.name] = _sha256(file)
    return listing_digest(digests)


def parse_manifest(folder: Path, content: bytes | None) -> Manifest:
    """Keeps what an engine needs of an `aurora.json`; raises RefusedError if it is malformed."""
    if content is None:
        return Manifest()
    found = _parse_object(folder / MANIFEST, content)
    values = {key: found.get(key, "") for key in Manifest.__slots__}
    for key, value in values.items():
        if not isinstance(value, str):
            raise bad_checkpoint(f"{folder / MANIFEST} has {key} {value!r}: it must be a string")
    return Manifest(**values)


def _parse_object(path: Path, content: bytes | None) -> Mapping[str, Any]:
    if content is None:
        raise bad_checkpoint(f"{path} is missing")
    try:
        found = json.loads(content)
    except ValueError as error:
        raise bad_checkpoint(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise bad_checkpoint(f"{path} is not a JSON object")
    return found


def _read_regular(path: Path, store: Path, *, keep: bool, limit: int | None) -> tuple[bytes, str]:
    """The content (empty unless `keep`) and SHA-256 of a regular file of the store.

    Opening neither follows a link out of the store nor waits for a FIFO's writer.
    """
    inside = path.resolve()
    if not inside.is_relative_to(store.resolve()):
        raise bad_checkpoint(f"{path} leads out of the store {store}")
    descriptor = os.open(inside, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise bad_checkpoint(f"{path} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if limit is not None and status.st_size > limit:
            raise bad_checkpoint(f"{path} has {status.st_size} bytes: at most {limit} are allowed")
        if keep:
            content = file.read()
            return content, hashlib.sha256(content).hexdigest()
        return b"", _sha256(file)


def _sha256(file: BinaryIO) -> str:
    """`hashlib.file_digest`, which Python 3.10 lacks."""
    hashed = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        hashed.update(chunk)
    return hashed.hexdigest()
