"""Services for the components' ports."""

from __future__ import annotations

from collections.abc import Mapping

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.metadata import Component, Json, metadata, selector
from aurora_operator.domain.objects.setting import Setting

_CLIENT_PROTOCOLS = {"http": "http", "grpc": "kubernetes.io/h2c"}


def service(
    deployment: AuroraDeployment,
    setting: Setting,
    component: Component,
    *,
    ports: Mapping[str, int],
    headless_name: str | None = None,
) -> Json:
    """A ClusterIP Service, or a headless one under `headless_name`."""
    spec: Json = {
        "selector": selector(deployment, component),
        "ports": [
            {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
            for name, port in ports.items()
        ],
    }
    if component == "inference":
        # For meshes and gateways. The other components' ports speak TLS, which is opaque to them.
        for port in spec["ports"]:
            port["appProtocol"] = _CLIENT_PROTOCOLS[port["name"]]
    if headless_name is not None:
        spec["clusterIP"] = "None"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployment, setting, component, name=headless_name),
        "spec": spec,
    }
