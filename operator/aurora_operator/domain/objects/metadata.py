"""Names, labels and ownership of a deployment's objects."""

from __future__ import annotations

from typing import Any, Literal

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.setting import Setting

Component = Literal["inference", "buffer", "trainer", "rank", "node"]
Json = dict[str, Any]

# The operator's name in labels, as field manager, and of its Lease.
MANAGER = "aurora-operator"


def component_name(deployment: AuroraDeployment, component: Component) -> str:
    return f"{deployment.metadata.name}-{component}"


def selector(deployment: AuroraDeployment, component: Component) -> dict[str, str]:
    """The labels that select a component's pods; immutable, as a workload's selector is."""
    return {
        "app.kubernetes.io/name": "aurora",
        "app.kubernetes.io/instance": deployment.metadata.name,
        "app.kubernetes.io/component": component,
    }


def labels(deployment: AuroraDeployment, component: Component | None) -> dict[str, str]:
    """`component` None: for an object that serves all components."""
    shared = {
        "app.kubernetes.io/name": "aurora",
        "app.kubernetes.io/instance": deployment.metadata.name,
        "app.kubernetes.io/managed-by": MANAGER,
    }
    return shared if component is None else {**shared, **selector(deployment, component)}


def metadata(
    deployment: AuroraDeployment,
    setting: Setting,
    component: Component | None,
    *,
    name: str | None = None,
) -> Json:
    """Metadata of an object that is deleted with the deployment.

    `name` defaults to the component's.
    """
    if name is None:
        assert component is not None
        name = component_name(deployment, component)
    return {
        "name": name,
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
