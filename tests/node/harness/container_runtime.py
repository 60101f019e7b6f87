"""containerd with its own root, state and socket; containers' links are pairs to the node.

The node's registry is also its mirror of Docker Hub, so that images are found there by their
default names too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from harness import place, registry
from harness.program import Program

_ROOT = place.FOLDER / "containerd"
SOCKET = _ROOT / "containerd.sock"
_NETWORK = place.FOLDER / "cni"
_START_SECONDS = 30.0
_IMPORT_SECONDS = 60.0
# TOML. One network: the node routes every packet of a pod, so that answers pass through the
# translation of a Service's address.
_CONFIGURATION = """
version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{registries}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{network}"
"""
_PLUGINS = "/usr/lib/cni"
_REGISTRIES = _ROOT / "registries"
_REGISTRY = """
[host."http://{address}"]
capabilities = ["pull", "resolve"]
"""
_MIRROR = (
    _REGISTRY
    + """[host."http://{address}".header]
Authorization = ["{authorization}"]
"""
)


def start_container_runtime() -> Program:
    """containerd; returns once it answers."""
    _NETWORK.mkdir()
    (_NETWORK / "10-pods.conflist").write_text(json.dumps(_network()))
    _ROOT.mkdir()
    for name, text in ((place.REGISTRY, _REGISTRY), ("docker.io", _MIRROR)):
        path = _REGISTRIES / name / "hosts.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text.format(address=place.REGISTRY, authorization=registry.authorization()))
    path = _ROOT / "config.toml"
    path.write_text(
        _CONFIGURATION.format(
            root=_ROOT,
            socket=SOCKET,
            pause=place.PAUSE_IMAGE,
            plugins=_PLUGINS,
            network=_NETWORK,
            registries=_REGISTRIES,
        )
    )
    program = Program("containerd", ["/usr/bin/containerd", "--config", path])
    program.await_that(_answers, "containerd answers", _START_SECONDS)
    return program


def import_image(archive: Path) -> None:
    """Imports the images of an archive for the kubelet."""
    _ctr("images", "import", str(archive), seconds=_IMPORT_SECONDS)


def kill_container(container_id: str) -> None:
    """Kills a container's processes; `container_id` as in a pod's status."""
    _ctr(
        "tasks",
        "kill",
        "--all",
        "--signal",
        "9",
        container_id.removeprefix("containerd://"),
        seconds=10.0,
    )


def running_containers() -> list[str]:
    """Ids of the containers, pause containers included."""
    return _ctr("tasks", "list", "--quiet", seconds=10.0).split()


def _network() -> dict[str, object]:
    pairs = {
        "type": "ptp",
        "mtu": 1500,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": place.PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(_NETWORK / "addresses"),
        },
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [pairs]}


def _answers() -> bool:
    try:
        _ctr("version", seconds=5.0)
    except subprocess.SubprocessError:
        return False
    return True


def _ctr(*arguments: str, seconds: float) -> str:
    command = ["/usr/bin/ctr", "--address", str(SOCKET), "--namespace", "k8s.io", *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds)
    return result.stdout
