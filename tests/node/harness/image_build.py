"""Builds images from the Dockerfile that users get, and pushes them to a registry on this machine.

The machine need not reach an image registry: the Dockerfile's bases are made of Debian's packages.
All of it is kept in the user's cache, from which later runs take the layers that are unchanged.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import registry

# Those that run as they are built; the others would hold gigabytes of torch.
COMPONENTS = ("operator", "buffer")
_BASE_PACKAGES = ("ca-certificates", "libstdc++6", "python3", "python3-pip")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# The settings of this machine's pip that hold elsewhere too.
_PIP_SETTINGS = ("index-url", "extra-index-url", "proxy", "timeout", "trusted-host")
# What a container could be explored or changed with: no component may need it.
_TOOLS = (
    *("bin/sh", "bin/dash", "bin/bash", "bin/perl*", "bin/apt*", "bin/dpkg*", "bin/pip*"),
    *("bin/mount", "bin/su", "lib/python3/dist-packages/*"),
)
_REMOVE_TOOLS = (
    "import pathlib, shutil\n"
    f"for pattern in {_TOOLS!r}:\n"
    "    for path in pathlib.Path('/usr').glob(pattern):\n"
    "        shutil.rmtree(path) if path.is_dir() else path.unlink()\n"
)
_MAXIMUM_CACHE_BYTES = 8 << 30
_LIMIT_SECONDS = 900
_SHOWN_LOG_CHARACTERS = 6000


class BuildError(Exception):
    """The images cannot be built; the message ends with what the builder said last."""


def obtain(repository: Path) -> Path:
    """A folder for `registry.command` with the images of `COMPONENTS`, tagged with the version.

    Raises BuildError.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = root / "aurora/images"
    cache.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    began = time.monotonic()
    with _locked(cache / ".lock"):
        _limit(cache)
        # Another checkout's images of this version are others.
        served = cache / hashlib.sha256(str(repository).encode()).hexdigest()[:12]
        served.mkdir(exist_ok=True)
        builder = _builder(cache)
        try:
            registry.obtain(cache)
            _build(repository, builder, _bases(cache, builder))
            with registry.serve(served, builder.log) as address:
                _push(address, builder, project["version"])
        except (OSError, subprocess.SubprocessError) as error:
            said = builder.log.read_text(errors="replace")[-_SHOWN_LOG_CHARACTERS:]
            raise BuildError(f"cannot build images: {error}\n{said}") from error
    _report(f"ready after {time.monotonic() - began:.0f} s; see {builder.log}")
    return served


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _limit(cache: Path) -> None:
    """Starts anew once the layers of many versions have become too many."""
    used = subprocess.run(
        ["du", "--summarize", "--bytes", str(cache)], capture_output=True, text=True, check=True
    )
    if int(used.stdout.split()[0]) > _MAXIMUM_CACHE_BYTES:
        _report(f"clearing {cache}, which has become too large")
        for path in cache.iterdir():
            if path.is_dir():
                shutil.rmtree(path)


@dataclass(frozen=True, slots=True)
class _Builder:
    """A buildah that keeps everything in the cache, and needs no daemon or container runtime."""

    environment: Mapping[str, str]
    log: Path

    def call(self, *command: str, **variables: str) -> None:
        with self.log.open("ab") as log:
            subprocess.run(
                command,
                env={**self.environment, **variables},
                stdout=log,
                stderr=log,
                timeout=_LIMIT_SECONDS,
                check=True,
            )

    def has(self, image: str) -> bool:
        command = ["buildah", "inspect", "--type", "image", image]
        found = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        return found.returncode == 0


def _builder(cache: Path) -> _Builder:
    settings, log = cache / "storage.conf", cache / "build.log"
    settings.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{cache / "storage"}"\n'
        f'runroot = "{cache / "run"}"\n'
    )
    log.write_text("")
    environment = {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(settings),
        "BUILDAH_ISOLATION": "chroot",
        "BUILDAH_LAYERS": "true",
    }
    return _Builder(environment, log)


def _bases(cache: Path, builder: _Builder) -> Mapping[str, str]:
    """The Dockerfile's build arguments BUILDER and BASE: images of Debian with Python.

    The second has neither a shell nor a package manager.
    """
    settings = _pip_configuration()
    key = hashlib.sha256(repr((_BASE_PACKAGES, _REMOVE_TOOLS, settings)).encode()).hexdigest()[:12]
    names = {stage: f"localhost/aurora-{stage.lower()}:{key}" for stage in ("BUILDER", "BASE")}
    if all(builder.has(name) for name in names.values()):
        return names
    _report("making a base of Debian's packages")
    with tempfile.TemporaryDirectory(dir=cache) as name:
        folder = Path(name)
        (folder / "pip.conf").write_text(settings)
        builder.call(
            *("mmdebstrap", "--quiet", "--variant=essential"),
            f"--include={','.join(_BASE_PACKAGES)}",
            f"--customize-hook=copy-in {_CERTIFICATES} {_CERTIFICATES.parent}",
            f"--customize-hook=copy-in {folder / 'pip.conf'} /etc",
            *("bookworm", str(folder / "base.tar")),
        )
        (folder / "Dockerfile").write_text(
            "FROM scratch AS builder\nADD base.tar /\n"
            f"FROM builder AS stripped\nRUN {json.dumps(['python3', '-c', _REMOVE_TOOLS])}\n"
            "FROM scratch AS base\nCOPY --from=stripped / /\n"
        )
        for stage, tag in names.items():
            target = ("--target", stage.lower(), "--tag", tag, str(folder))
            builder.call("buildah", "build", "--pull-never", *target)
    return names


def _pip_configuration() -> str:
    """A pip.conf with those settings of this machine's pip that a container can follow."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = ["[global]", f"cert = {_CERTIFICATES}"]
    for name, value in re.findall(r"^\S+\.([\w-]+)='(.*)'$", found, re.MULTILINE):
        if name in _PIP_SETTINGS:
            lines.append(f"{name} = {value}")
    return "\n".join([*lines, ""])


def _build(repository: Path, builder: _Builder, bases: Mapping[str, str]) -> None:
    arguments = [f"--build-arg={stage}={name}" for stage, name in bases.items()]
    settings = {
        "BUILDER": "buildah",
        "COMPONENTS": " ".join(COMPONENTS),
        "IMAGE_PREFIX": "localhost/aurora",
        "BUILD_ARGS": " ".join(("--pull-never", *arguments)),
    }
    for mode in ((), ("--sbom",)):
        builder.call(str(repository / "tools/images.sh"), *mode, **settings)


def _push(address: str, builder: _Builder, version: str) -> None:
    account = f"--creds={registry.USER}:{registry.PASSWORD}"
    for component in COMPONENTS:
        name = f"aurora-{component}:{version}"
        there = f"docker://{address}/{registry.NAMESPACE}/{name}"
        options = ("--quiet", "--tls-verify=false", account)
        builder.call("buildah", "push", *options, f"localhost/{name}", there)


def _report(text: str) -> None:
    sys.stderr.write(f"images: {text}\n")
