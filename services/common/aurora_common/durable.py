"""Atomic, durable file writes: after a crash a file is complete or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aurora_common.errors import StorageError


def write_file(path: Path, content: bytes) -> None:
    """Replaces `path` atomically: written beside it, fsynced, renamed.

    Raises StorageError on failure, with `path` unchanged.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def new_folder(path: Path, *, final_name: Callable[[Path], str] | None = None) -> Iterator[Path]:
    """Yields a folder beside `path` to fill; it is fsynced and renamed to `path` afterwards.

    `final_name`: computes the name from the filled folder, in place of `path`'s own. If the block
    raises, nothing is left; an existing folder of that name is kept. Raises StorageError for any
    OSError, a full disk included.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        for file in beside.iterdir():
            _sync(file)
        sync_folder(beside)
        if final_name is not None:
            path = path.with_name(final_name(beside))
        if not path.exists():
            beside.rename(path)
            sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Makes a folder's entries durable: the names, not their content."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
