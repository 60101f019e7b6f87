"""A private image registry: Debian's `docker-registry`, which serves a folder over HTTP."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = "docker-registry"
# Where Docker Hub has an image whose name is a single word: the registry can be its mirror.
NAMESPACE = "library"
USER, PASSWORD = "node", "a-password-for-tests"
# PASSWORD by bcrypt, which is all that the registry takes.
_ACCOUNTS = f"{USER}:$2b$05$abcdefghijklmnopqrstuuBLXRD1do2sv2yeOR4KP05rNE/mCs5mW\n"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_START_SECONDS = 20.0
_POLL_SECONDS = 0.1


def obtain(cache: Path) -> None:
    """Unpacks the program into the cache, unless it is there.

    Not installed: that would start its service. Raises subprocess.CalledProcessError.
    """
    unpacked = cache / _PACKAGE
    if unpacked.exists():
        return
    with tempfile.TemporaryDirectory(dir=cache) as name:
        folder = Path(name)
        for step in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "download", _PACKAGE]):
            subprocess.run(step, cwd=folder, check=True, stdout=sys.stderr)
        (archive,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, folder / "all"], check=True)
        (folder / "all").rename(unpacked)


def command(images: Path, address: str, configuration: Path) -> list[str | Path]:
    """The command line to serve a folder of the cache; writes to the folder `configuration`."""
    accounts = configuration / "registry-accounts"
    accounts.write_text(_ACCOUNTS)
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(images)}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "node", "path": str(accounts)}},
    }
    path = configuration / "registry.json"
    # YAML, of which JSON is a part.
    path.write_text(json.dumps(settings))
    return [images.parent / _PACKAGE / "usr/bin/docker-registry", "serve", path]


def authorization() -> str:
    """The header by which a client is admitted."""
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def pull_secret(namespace: str, name: str, address: str) -> dict[str, object]:
    """A Secret with which the kubelet may pull."""
    content = {"auths": {address: {"username": USER, "password": PASSWORD}}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps(content)},
    }


def _free_address() -> str:
    """An address of this machine alone that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def serve(images: Path, log: Path) -> Iterator[str]:
    """Serves meanwhile, to this machine alone; gives the address. OSError if it does not start."""
    address = _free_address()
    arguments = command(images, address, images)
    with (
        log.open("ab") as output,
        subprocess.Popen(arguments, stdout=output, stderr=output) as process,
    ):
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise OSError(f"the registry does not answer at {address}")
                time.sleep(_POLL_SECONDS)
            yield address
        finally:
            process.terminate()


def digest(address: str, name: str, tag: str) -> str:
    """The digest of an image that it has."""
    request = urllib.request.Request(
        f"http://{address}/v2/{NAMESPACE}/{name}/manifests/{tag}",
        headers={"Authorization": authorization(), "Accept": _MANIFEST},
        method="HEAD",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.headers["Docker-Content-Digest"])


def answers(address: str) -> bool:
    """Whether a registry asks for an account there."""
    try:
        urllib.request.urlopen(f"http://{address}/v2/", timeout=5)
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 401
    except OSError:
        pass
    return False
