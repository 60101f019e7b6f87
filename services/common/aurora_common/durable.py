"""Files that are there whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aurora_common.errors import StorageError


def write_file(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`: written beside it, fsynced, renamed.

    Raises StorageError, with `path` as it was, where that fails.
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
    """Gives a folder beside `path` to fill; it becomes `path`, fsynced, once the block ends well.

    `final_name`: names the filled folder in place of `path`'s name, where only its content tells.
    Where the block raises, nothing is left. Where the name is taken already, it is left as it is.
    Raises StorageError for any OSError, a full disk included.
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
    """Makes the names in a folder durable."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
