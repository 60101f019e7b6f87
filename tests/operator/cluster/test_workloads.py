"""What is read from the API server while a pod is stuck."""

from aurora_common.errors import UnavailableError
from aurora_operator.cluster import workloads
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.kinds import Key
from aurora_operator.cluster.workloads import PodWorkloads
from aurora_operator.domain.manifest.parser import deployment_from_object

BODY = {
    "apiVersion": "aurora.dev/v1alpha1",
    "kind": "AuroraDeployment",
    "metadata": {"name": "chat", "namespace": "default"},
    "spec": {
        "target": {"uri": "pvc://models/target"},
        "modelStore": {"pvc": {"claimName": "models"}},
        "buffer": {"embedded": {}},
    },
}
UNSCHEDULED = {
    "metadata": {
        "name": "chat-inference-1",
        "labels": {"app.kubernetes.io/component": "inference"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "models"}}]},
    "status": {
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "no node fits"}]
    },
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "chat-inference",
        "namespace": "default",
        "uid": "u-2",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app.kubernetes.io/instance": "chat"}}},
    "status": {"observedGeneration": 1, "replicas": 1},
}


class _Away:
    """An API server that cannot be reached."""

    async def list(self, kind, namespace, *, fields):
        raise UnavailableError("away")

    async def get(self, kind, namespace, name):
        raise UnavailableError("away")


async def test_an_unreadable_claim_is_not_judged_and_delays_nothing():
    key, children = Key("default", "chat"), ChildStore()
    children.remember(key, DEPLOYMENT)
    look = PodWorkloads(_Away(), children)
    (view, *_), _ = await look(key, deployment_from_object(BODY), [UNSCHEDULED])
    assert "cannot be scheduled: no node fits" in view.message
    assert "PersistentVolumeClaim" not in view.message


async def test_cached_events_of_a_namespace_expire(monkeypatch):
    monkeypatch.setattr(workloads, "_FRESH_SECONDS", 0.0)
    look = PodWorkloads(_Away(), ChildStore())
    deployment = deployment_from_object(BODY)
    for number in range(10):
        await look(Key(f"space-{number}", "chat"), deployment, [UNSCHEDULED])
    assert len(look._events) == 1
