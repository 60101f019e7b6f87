"""Builds `kubectl aurora` as one file, and its krew manifest.

    python tools/kubectl_file.py --url URL [--into DIR]

The file is a zip with all that the client needs of this environment, which it is built for: its
system, processor and version of Python. It unpacks itself once, into the user's cache, as compiled
libraries cannot be loaded from a zip. The manifest names the archives of all platforms in DIR, so
that building on each of them into one folder, and then once more, makes a whole one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import platform
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT, EXTRA = "aurora-serving", "client"
PROGRAM = "kubectl-aurora"
# Aurora's own modules that the client needs: an editable install lists none.
OWN = {
    "aurora_client": ROOT / "services/client/aurora_client",
    "aurora_common": ROOT / "services/common/aurora_common",
    "aurora": ROOT / "protos/gen/aurora",
}
_ARCHIVE = re.compile(rf"{PROGRAM}-(?P<os>\w+)-(?P<arch>\w+)\.tar\.gz")
_LEFT_OUT = re.compile(r"(^|/)(__pycache__|tests?|testing)/|\.pyc$|\.pyi$|\.pxd$|\.pyx$|^\.\./|^/")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_START = '''\
"""Unpacks what it carries, once, and runs `kubectl aurora` from there."""

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

DIGEST = "{digest}"
PYTHON = {python!r}


def unpacked():
    """The folder of what this file carries; complete if it exists."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "aurora" / f"{program}-{{DIGEST}}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.mkdtemp(dir=folder.parent)
        with zipfile.ZipFile(sys.argv[0]) as carried:
            carried.extractall(beside)
        try:
            os.rename(beside, folder)
        except OSError:
            # Another one was faster.
            shutil.rmtree(beside)
    return folder


if sys.version_info[:2] != PYTHON:
    versions = (*PYTHON, *sys.version_info[:2])
    sys.exit("{program}: this file needs Python %d.%d; this is %d.%d" % versions)
sys.path.insert(0, str(unpacked()))
from aurora_client._kubectl.__main__ import main

main()
'''


def distributions() -> Mapping[str, Distribution]:
    """All that the client requires, by name, the project itself included."""
    found: dict[str, Distribution] = {}
    asked: list[tuple[str, tuple[str, ...]]] = [(PROJECT, (EXTRA,))]
    while asked:
        name, extras = asked.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        if name in found:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            wanted = Requirement(line)
            context = [{"extra": extra} for extra in extras or ("",)]
            if wanted.marker is None or any(wanted.marker.evaluate(each) for each in context):
                asked.append((wanted.name, tuple(wanted.extras)))
    return found


def carried() -> Iterator[tuple[str, Path]]:
    """The files by their place in the zip."""
    for name, found in distributions().items():
        for file in found.files or ():
            is_own = name == PROJECT and ".dist-info/" not in str(file)
            path = Path(str(found.locate_file(file)))
            if not is_own and not _LEFT_OUT.search(file.as_posix()) and path.is_file():
                yield file.as_posix(), path
    for package, folder in OWN.items():
        for path in folder.rglob("*"):
            place = f"{package}/{path.relative_to(folder).as_posix()}"
            if path.is_file() and not _LEFT_OUT.search(place):
                yield place, path


def built() -> bytes:
    """The file, the same for the same content."""
    content = {place: path.read_bytes() for place, path in carried()}
    digest = hashlib.sha256()
    for place in sorted(content):
        digest.update(f"{place}\0{len(content[place])}\0".encode() + content[place])
    start = _START.format(
        digest=digest.hexdigest()[:16], python=sys.version_info[:2], program=PROGRAM
    )
    made = io.BytesIO()
    made.write(b"#!/usr/bin/env python%d.%d\n" % sys.version_info[:2])
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, data in ("__main__.py", start.encode()), *sorted(content.items()):
            archive.writestr(zipfile.ZipInfo(place, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def archive(program: bytes, into: Path) -> Path:
    """The tar that krew installs from."""
    system, machine = platform.system().lower(), platform.machine().lower()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    path = into / f"{PROGRAM}-{system}-{arch}.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name, data, mode in (
            (PROGRAM, program, 0o755),
            ("LICENSE", (ROOT / "LICENSE").read_bytes(), 0o644),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            packed.addfile(entry, io.BytesIO(data))
    return path


def manifest(into: Path, url: str) -> dict[str, object]:
    """krew's, of every archive in the folder."""
    major, minor = sys.version_info[:2]
    return {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "aurora"},
        "spec": {
            "version": f"v{distribution(PROJECT).version}",
            "homepage": url,
            "shortDescription": "Inspect and steer AuroraDeployments",
            "description": (
                "Shows an AuroraDeployment's drafts, rollout, evidence and pods; promotes,\n"
                "aborts, pauses, suspends and resumes.\n"
            ),
            "caveats": f"Needs python{major}.{minor} on the PATH.\n",
            "platforms": [
                {
                    "selector": {"matchLabels": found.groupdict()},
                    "uri": f"{url}/{path.name}",
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "bin": PROGRAM,
                }
                for path in sorted(into.iterdir())
                if (found := _ARCHIVE.fullmatch(path.name))
            ],
        },
    }


def main() -> None:
    """Builds into a folder, and prints where."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--into", type=Path, default=ROOT / "out/kubectl", metavar="DIR")
    parser.add_argument("--url", required=True, help="the folder that will have the archives")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    program = built()
    path = options.into / PROGRAM
    path.write_bytes(program)
    path.chmod(0o755)
    archived = archive(program, options.into)
    described = options.into / "aurora.yaml"
    described.write_text(yaml.safe_dump(manifest(options.into, options.url), sort_keys=False))
    for made in (path, archived, described):
        print(made)


if __name__ == "__main__":
    main()
