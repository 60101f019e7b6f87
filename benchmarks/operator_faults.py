"""What the operator does about deletions, another operator, and causes that last."""

from __future__ import annotations

import time

from benchmarks.cluster import Cluster, Restoring, api_server
from support.causes import CAUSES, Failing
from support.control_plane import ADMINISTRATORS
from support.kubelet import Kubelet
from support.operator_process import OperatorProcess, install_rights

from aurora_operator.cluster.kinds import INSTANCE, SECRET, WATCHED

_OVERLAP_SECONDS = 60.0
# Told within seconds.
_QUICK = ("an image that does not exist", "no cert-manager", "a Service of that name")


def restored_seconds(place: Cluster, names: list[str]) -> list[float]:
    """Deletes whatever the deployments own; how long each object was gone."""
    selector = f"{INSTANCE} in ({','.join(names)})"
    owned = []
    for kind in (*WATCHED, SECRET):
        path = kind.path(place.namespace)
        found = place.server.request("GET", f"{path}?labelSelector={_quoted(selector)}")
        owned += [kind.path(place.namespace, each["metadata"]["name"]) for each in found["items"]]
    restoring = Restoring(place.operator.user, len(owned))
    place.writes.read()
    for path in owned:
        place.server.request("DELETE", path)
    place.follow(restoring.take, lambda: restoring.is_over)
    return restoring.seconds()


def _quoted(selector: str) -> str:
    return selector.replace(" ", "%20")


def overlap_writes(place: Cluster, seconds: float = _OVERLAP_SECONDS) -> int:
    """What both operators write in a minute after a second one began, their Leases aside."""
    namespace = place.server.create_namespace("second")
    user = install_rights(place.server, place.programs / "helm", namespace, release="second")
    folder = place.folder / "second"
    folder.mkdir()
    second = OperatorProcess(place.server, user, folder)
    place.writes.read()
    second.start(wait=False)
    try:
        time.sleep(seconds)
    finally:
        second.stop()
    users = (user, place.operator.user)
    return sum(write.user in users and write.resource != "leases" for write in place.writes.read())


def named_share(*, quick: bool) -> float:
    """The share of the causes that Degraded tells within two minutes."""
    with api_server() as (server, programs, folder):
        server.start_controllers()
        user = install_rights(server, programs / "helm", server.create_namespace("aurora-system"))
        node = server.kubeconfig_of("played-kubelet", *ADMINISTRATORS)
        (folder / "node").mkdir()
        kubelet = Kubelet(node, folder / "node")
        failing = Failing(server, kubelet, _QUICK if quick else tuple(CAUSES))
        operator = OperatorProcess(server, user, folder)
        try:
            operator.start(namespaces=failing.namespaces)
            failing.begin()
            told = failing.seconds(operator.restart_if_lease_lost)
            for cause, message in failing.messages().items():
                print(f"not told: {cause}: {message}")
        finally:
            operator.stop()
            kubelet.close()
            failing.end()
    return len(told) / len(_QUICK if quick else CAUSES)
