"""Services for the components' ports."""

from __future__ import annotations

from collections.abc import Mapping

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.metadata import Component, Json, metadata, selector
from aurora_operator.domain.objects.setting import Setting

_PLAIN = {"http": "http", "grpc": "kubernetes.io/h2c"}
# gRPC over TLS is HTTP/2 over TLS, and IANA's name for that is https.
_ENCRYPTED = {"grpc": "https"}


def service(
    deployment: AuroraDeployment,
    setting: Setting,
    component: Component,
    *,
    ports: Mapping[str, int],
    headless_name: str | None = None,
) -> Json:
    """A ClusterIP Service, or a headless one under `headless_name`."""
    # Clients' ports are plain: a gateway or a mesh, which read `appProtocol`, encrypt them.
    plain = component == "inference" or deployment.spec.security.tls.mode == "Disabled"
    protocols = _PLAIN if plain else _ENCRYPTED
    spec: Json = {
        "selector": selector(deployment, component),
        "ports": [
            {
                "name": name,
                "port": port,
                "targetPort": name,
                "protocol": "TCP",
                "appProtocol": protocols[name],
            }
            for name, port in ports.items()
        ],
    }
    if (policy := deployment.spec.network.ip_family_policy) is not None:
        spec["ipFamilyPolicy"] = policy
    if headless_name is not None:
        spec["clusterIP"] = "None"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployment, setting, component, name=headless_name),
        "spec": spec,
    }
