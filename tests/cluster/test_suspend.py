"""A deployment that is suspended amid a rollout, and resumed, on a real control plane."""

import pytest
from support.deployments import wait_until

REPLICAS = {"chat-inference": 0, "chat-buffer": 0, "chat-trainer": 0}
KEPT = ("services", "secrets", "persistentvolumeclaims", "serviceaccounts")


@pytest.fixture
def rolling(deployments, kubelet, operator):
    """A deployment whose candidate is on trial, and needs more requests than it will get."""
    kubelet.world.requests_per_poll = 3
    deployments.apply(
        replicas=2,
        draft={"initialCheckpoint": {"uri": "pvc://models/draft-0"}},
        rollout={
            "steps": [{"weightPercent": 50}],
            "analysis": {"method": "Canary", "minRequests": 100_000},
        },
    )
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    deployments.await_status(lambda status: status.get("stable"))
    kubelet.publish(deployments.namespace, "chat", acceptance=0.6)
    deployments.await_status(
        lambda status: (
            status.get("rollout", {}).get("state") == "Analyzing"
            and status["rollout"]["evidence"]["requests"] > 20
        )
    )
    return deployments


def replicas(deployments):
    return {
        body["metadata"]["name"]: body["spec"]["replicas"]
        for plural in ("deployments", "statefulsets")
        for body in deployments.objects("apps/v1", plural)
    }


def uids(deployments):
    return {
        body["metadata"]["uid"]
        for plural in KEPT
        for body in deployments.objects("v1", plural, "app.kubernetes.io/instance=chat")
    }


def is_suspended(status):
    return any(
        (each["type"], each["status"]) == ("Suspended", "True")
        for each in status.get("conditions", ())
    )


def pods(deployments):
    labels = "app.kubernetes.io/instance=chat"
    return [pod["metadata"]["name"] for pod in deployments.objects("v1", "pods", labels)]


def reason(deployments, kind):
    found = deployments.condition(kind)
    return found["status"], found["reason"]


def test_a_rollout_goes_on_where_it_was(rolling, kubelet, operator):
    before, kept = rolling.status(), uids(rolling)

    rolling.steer(suspend=True)
    status = rolling.await_status(is_suspended, seconds=60)

    assert replicas(rolling) == REPLICAS
    assert pods(rolling) == []
    assert uids(rolling) == kept
    assert reason(rolling, "Ready") == ("False", "Suspended")
    assert reason(rolling, "Degraded") == ("False", "AsExpected")
    held = status["rollout"]
    assert held["state"] == "Analyzing"
    assert held["clock"]["startedAt"] == before["rollout"]["clock"]["startedAt"]
    assert "pausedAt" in held["clock"]
    # Every request that was answered counts, the last ones included.
    assert held["evidence"]["requests"] >= before["rollout"]["evidence"]["requests"]
    assert held["evidence"]["crashes"] == 0

    rolling.steer(suspend=False)
    rolling.await_ready(seconds=60)
    status = rolling.await_status(
        lambda status: (
            status["rollout"]["evidence"]["requests"] > held["evidence"]["requests"] + 20
        ),
        seconds=60,
    )
    assert (status["rollout"]["id"], status["rollout"]["state"]) == (held["id"], "Analyzing")
    assert "pausedAt" not in status["rollout"]["clock"]
    assert status["rollout"]["evidence"]["crashes"] == 0
    assert status["stable"]["digest"] == before["stable"]["digest"]
    assert status["attempts"] == before["attempts"]
    assert reason(rolling, "Suspended") == ("False", "Resumed")
    assert operator.errors() == []


def test_a_suspended_one_is_left_alone(rolling, operator, control_plane):
    rolling.steer(suspend=True)
    rolling.await_status(is_suspended, seconds=60)
    version = rolling.get()["metadata"]["resourceVersion"]
    mark = control_plane.audit.mark()

    operator.restart()
    wait_until(lambda: "aurora_operator_leader 1.0" in operator.metrics())
    rolling.annotate("chat", {"note": "seen"})
    rolling.await_status(is_suspended)

    written = control_plane.audit.writes(mark, user=operator.user, namespace=rolling.namespace)
    assert {write.resource for write in written} <= {"leases"}
    assert int(rolling.get()["metadata"]["resourceVersion"]) > int(version)


def test_an_autoscaler_does_not_fight(deployments, kubelet, operator):
    deployments.apply(inference={"autoscaling": {"minReplicas": 2, "maxReplicas": 4}})
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()

    deployments.steer(suspend=True)
    deployments.await_status(is_suspended, seconds=60)
    assert replicas(deployments) == REPLICAS
    assert deployments.is_there("autoscaling/v2", "horizontalpodautoscalers", "chat-inference")

    # The autoscaler's controller runs: that it left the Deployment alone is in its own status.
    def is_disabled():
        found = deployments.object("autoscaling/v2", "horizontalpodautoscalers", "chat-inference")
        return any(
            (each["type"], each["status"], each["reason"])
            == ("ScalingActive", "False", "ScalingDisabled")
            for each in found.get("status", {}).get("conditions", ())
        )

    wait_until(is_disabled, seconds=60)
    assert replicas(deployments) == REPLICAS

    deployments.steer(suspend=False)
    wait_until(lambda: replicas(deployments)["chat-inference"] >= 1)
    deployments.await_ready(seconds=60)


def test_one_that_begins_suspended_makes_no_pod(deployments, kubelet, operator):
    deployments.apply(suspend=True)
    operator.start(namespaces=[deployments.namespace])

    deployments.await_status(is_suspended)

    assert replicas(deployments) == REPLICAS
    assert kubelet.workers(deployments.namespace) == []
