"""Names, labels and ownership: what makes an object the deployment's own."""

from __future__ import annotations

from typing import Any, Literal

from aurora_operator.domain.objects.setting import Setting
from aurora_operator.domain.spec import AuroraDeployment

Component = Literal["inference", "buffer", "trainer"]
Json = dict[str, Any]


def component_name(deployment: AuroraDeployment, component: Component) -> str:
    return f"{deployment.metadata.name}-{component}"


def selector(deployment: AuroraDeployment, component: Component) -> dict[str, str]:
    """The labels that choose a component's pods; never changed, as a workload's selector is."""
    return {
        "app.kubernetes.io/name": "aurora",
        "app.kubernetes.io/instance": deployment.metadata.name,
        "app.kubernetes.io/component": component,
    }


def labels(deployment: AuroraDeployment, component: Component) -> dict[str, str]:
    return {
        **selector(deployment, component),
        "app.kubernetes.io/managed-by": "aurora-operator",
    }


def metadata(
    deployment: AuroraDeployment,
    setting: Setting,
    component: Component,
    *,
    name: str | None = None,
) -> Json:
    """Metadata of an object that goes when the deployment goes; named after the component."""
    return {
        "name": name or component_name(deployment, component),
        "namespace": deployment.metadata.namespace,
        "labels": labels(deployment, component),
        "ownerReferences": [
            {
                "apiVersion": deployment.api_version,
                "kind": deployment.kind,
                "name": deployment.metadata.name,
                "uid": setting.owner_uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
