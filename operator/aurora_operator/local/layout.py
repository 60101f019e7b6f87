"""The files of a local deployment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from aurora_common.errors import StorageError


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths under one data directory."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def processes(self) -> Path:
        """The chosen ports and the running processes."""
        return self.root / "processes.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def deployment(self) -> Path:
        """The manifest last accepted, with its generation."""
        return self.root / "deployment.json"

    @property
    def manifest(self) -> Path:
        """The manifest that was read from standard input."""
        return self.root / "manifest.yaml"

    @property
    def operator(self) -> Path:
        """The addresses of the operator and of the clients' ports."""
        return self.root / "operator.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def redis_socket(self) -> Path:
        return self.redis / "redis.sock"

    @property
    def engine(self) -> Path:
        """What an engine that is not Aurora's own is started with."""
        return self.root / "engine"

    @property
    def trainer(self) -> Path:
        return self.root / "trainer"

    @property
    def claims(self) -> Path:
        """Each PersistentVolumeClaim of the manifest is a folder of its name in here."""
        return self.root / "pvc"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def models(self, claim: str, deployment: str) -> Path:
        """Where a deployment's drafts are published."""
        return self.claims / claim / deployment


def prepared_layout(root: Path) -> Layout:
    """Makes the folders under `root`; StorageError names the one that cannot be written."""
    layout = Layout(root.absolute())
    folders = (layout.logs, layout.redis, layout.engine, layout.trainer, layout.claims)
    for folder in (layout.root, *folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder {folder}: {error.strerror}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StorageError(f"cannot write in {folder}: permission denied")
    return layout
