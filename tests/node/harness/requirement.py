"""What the node needs of the machine: root, Linux, and programs from Debian and from Kubernetes.

As a program, `python -m harness.requirement`, it reports whether `make e2e` can run here: exit code
0, or 1 with the reason.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

# Each Debian package, and a file that shows that it is installed.
_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "iproute2": "ip",
    "util-linux": "unshare",
    "mount": "mount",
}
_INSTALL_SECONDS = 300


class MissingError(Exception):
    """This machine cannot run a node; the message says what it lacks."""


def obtain(repository: Path) -> Path:
    """The folder of the Kubernetes programs; installs and builds what is missing.

    Raises MissingError if that is not possible.
    """
    check()
    if missing := _missing():
        _install(missing)
    if missing := _missing():
        raise MissingError(f"a node needs the Debian packages {' '.join(missing)}")
    result = subprocess.run(
        [sys.executable, str(repository / "tools/kubernetes/obtain.py")],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode:
        raise MissingError("a node needs Kubernetes' programs: see above")
    return Path(result.stdout.strip())


def check() -> None:
    """Raises MissingError if this machine cannot run a node; changes nothing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise MissingError("a node needs Linux on x86-64")
    if os.geteuid() != 0:
        raise MissingError("a node needs root: it makes namespaces, mounts and containers")
    if (missing := _missing()) and shutil.which("apt-get") is None:
        raise MissingError(f"a node needs the Debian packages {' '.join(missing)}")
    attempt = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    if "util-linux" not in missing and subprocess.run(attempt, check=False).returncode:
        raise MissingError("a node needs a root that may make namespaces")


def _missing() -> list[str]:
    return [
        package
        for package, file in _PACKAGES.items()
        if shutil.which(file) is None and not Path(file).exists()
    ]


def _install(packages: list[str]) -> None:
    sys.stderr.write(f"e2e: installing {' '.join(packages)}\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        subprocess.run(
            ["apt-get", "--quiet", "--quiet", *command],
            env=environment,
            stdout=sys.stderr,
            timeout=_INSTALL_SECONDS,
            check=False,
        )


if __name__ == "__main__":
    try:
        check()
    except MissingError as error:
        sys.exit(f"e2e: {error}")
