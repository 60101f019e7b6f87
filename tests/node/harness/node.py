"""The programs of a node: kubelet, kube-proxy and CoreDNS."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from harness import place
from harness.container_runtime import SOCKET
from harness.leftover import CGROUP_VARIABLE, hierarchies
from harness.program import Program
from support.control_plane import ADMINISTRATORS, ApiServer

_CONFIGURATIONS = place.FOLDER / "node"
# Of a Corefile.
_NAMES = """.:53 {{
    bind {address}
    errors
    ready {address}:8181
    kubernetes {domain} {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
"""


def start_node(programs: Path, api: ApiServer) -> list[Program]:
    """Starts the node's programs; the node registers itself."""
    _CONFIGURATIONS.mkdir()
    cgroup = os.environ[CGROUP_VARIABLE]
    for root in hierarchies():
        (root / cgroup).mkdir(exist_ok=True)
    return [
        _kubelet(programs, api, cgroup),
        _proxy(programs, api),
        _names(programs, api),
    ]


def _kubelet(programs: Path, api: ApiServer, cgroup: str) -> Program:
    identity = api.kubeconfig_of(f"system:node:{place.NAME}", "system:nodes")
    pods = place.LOGS / "pods"
    shutil.rmtree(pods, ignore_errors=True)
    pods.mkdir()
    resolution = _CONFIGURATIONS / "resolv.conf"
    resolution.write_text("")
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(api.authority)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "clusterDNS": [place.ADDRESS],
        "clusterDomain": place.DOMAIN,
        "resolvConf": str(resolution),
        "podLogsDir": str(pods),
        "volumePluginDir": str(_CONFIGURATIONS / "plugins"),
        "readOnlyPort": 0,
        "maxPods": 100,
        "registerNode": True,
        # The node must not evict pods for the machine's disk and memory.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "enforceNodeAllocatable": ["pods"],
        # Tests wait for its answers.
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    }
    return Program(
        "kubelet",
        [
            programs / "kubelet",
            f"--config={_written('kubelet', configuration)}",
            f"--kubeconfig={identity}",
            f"--root-dir={place.FOLDER / 'kubelet'}",
            f"--cert-dir={_CONFIGURATIONS}",
            f"--hostname-override={place.NAME}",
            f"--node-ip={place.ADDRESS}",
        ],
    )


def _proxy(programs: Path, api: ApiServer) -> Program:
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(api.kubeconfig_of("system:kube-proxy"))},
        "clusterCIDR": place.PODS,
        "hostnameOverride": place.NAME,
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        # Leaves the machine's limits unchanged.
        "conntrack": {
            "maxPerCore": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    return Program(
        "kube-proxy", [programs / "kube-proxy", f"--config={_written('proxy', configuration)}"]
    )


def _names(programs: Path, api: ApiServer) -> Program:
    path = _CONFIGURATIONS / "Corefile"
    path.write_text(
        _NAMES.format(
            address=place.ADDRESS,
            domain=place.DOMAIN,
            kubeconfig=api.kubeconfig_of("coredns", *ADMINISTRATORS),
        )
    )
    return Program("coredns", [programs / "coredns", "-conf", path])


def _written(name: str, configuration: dict[str, object]) -> Path:
    path = _CONFIGURATIONS / f"{name}.json"
    path.write_text(json.dumps(configuration))
    return path
