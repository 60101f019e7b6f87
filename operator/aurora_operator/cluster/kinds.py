"""The kinds of objects that the operator reads and writes."""

from __future__ import annotations

from typing import NamedTuple

from aurora_operator.adapters.kubernetes import Json, Kind
from aurora_operator.domain.objects.metadata import MANAGER

DEPLOYMENT = Kind("aurora.dev/v1alpha1", "AuroraDeployment", "auroradeployments")
POD = Kind("v1", "Pod", "pods")
SECRET = Kind("v1", "Secret", "secrets")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Kind("v1", "Event", "events")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
CERTIFICATE = Kind("cert-manager.io/v1", "Certificate", "certificates")
GROUP = Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets")

# The watched ones of the kinds that the operator makes: not Secrets, which are read by name only,
# nor those that a cluster may lack. Both are polled.
WATCHED = (
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("apps/v1", "StatefulSet", "statefulsets"),
    Kind("v1", "Service", "services"),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    AUTOSCALER,
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
)
POLLED = (CERTIFICATE, GROUP)
CHILDREN = {kind.kind: kind for kind in (*WATCHED, *POLLED)}

MANAGED_BY = "app.kubernetes.io/managed-by"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
# With "true" on a deployment, it takes over what an earlier one of its name left.
ADOPT = "aurora.dev/adopt"
SELECTOR = f"{MANAGED_BY}={MANAGER}"


class Key(NamedTuple):
    """The namespace and name of an AuroraDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Reference(NamedTuple):
    """An object in a deployment's namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def reference(body: Json) -> Reference:
    return Reference(body["kind"], body["metadata"]["name"])


def owner(body: Json) -> Key | None:
    """The deployment that a child's or a pod's labels name."""
    metadata = body["metadata"]
    name = metadata.get("labels", {}).get(INSTANCE)
    return Key(metadata["namespace"], name) if name else None


def is_owned_by(body: Json, uid: str) -> bool:
    """Whether the deployment of that uid controls the object."""
    return any(
        known.get("uid") == uid and known.get("controller")
        for known in body["metadata"].get("ownerReferences", ())
    )


def is_left_by(body: Json, key: Key) -> bool:
    """Whether an earlier deployment of that name left the object: by labels and controller."""
    metadata = body["metadata"]
    labels = metadata.get("labels", {})
    controllers = [each for each in metadata.get("ownerReferences", ()) if each.get("controller")]
    return (
        owner(body) == key
        and labels.get(MANAGED_BY) == MANAGER
        and all((each["kind"], each["name"]) == (DEPLOYMENT.kind, key.name) for each in controllers)
    )
