"""A vLLM that others own: the operator follows its pods, and writes to none of them."""

from __future__ import annotations

import pytest
from support.deployments import wait_until

LABELS = {"app": "vllm", "model": "qwen"}
ENGINE = {
    "type": "vllm",
    "attach": {"selector": LABELS, "keySecretRef": {"name": "vllm", "key": "api-key"}},
}
CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SPEC = {"engine": ENGINE, "draft": {"initialCheckpoint": {"uri": "pvc://models/draft-0"}}}


@pytest.fixture
def engine(deployments):
    """Creates a pod of the owner's."""

    # The namespace's own account may not exist yet.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "owner"}}
    deployments.apply_object("v1", "serviceaccounts", account)

    def engine(name, labels=LABELS):
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "containers": [{"name": "vllm", "image": "vllm:1", "securityContext": CONFINED}],
                "securityContext": {
                    "runAsNonRoot": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "serviceAccountName": "owner",
                "terminationGracePeriodSeconds": 1,
            },
        }
        return deployments.apply_object("v1", "pods", body)["metadata"]["uid"]

    return engine


@pytest.fixture
def chat(deployments, kubelet, operator, engine):
    """A deployment that is attached to a vLLM of two pods."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vllm"}}
    deployments.apply_object("v1", "secrets", {**secret, "stringData": {"api-key": "k"}})
    engine("vllm-0")
    engine("vllm-1")
    engine("other", {"app": "vllm"})
    deployments.apply(**SPEC)
    operator.start(namespaces=[deployments.namespace])
    deployments.await_status(lambda status: status.get("readyReplicas") == 2)
    deployments.await_ready()
    return deployments


def gateways(chat):
    """The engine of each gateway that is ready, by the name of its pod."""
    return {
        pod["metadata"]["name"]: pod["metadata"]["annotations"]["aurora.dev/engine-pod"]
        for pod in chat.pods("inference")
        if "deletionTimestamp" not in pod["metadata"]
        and {"type": "Ready", "status": "True"}.items()
        <= {
            key: condition[key]
            for condition in pod["status"].get("conditions", ())
            if condition["type"] == "Ready"
            for key in ("type", "status")
        }.items()
    }


def test_each_pod_has_a_gateway_and_is_left_alone(chat, operator, control_plane):
    assert sorted(gateways(chat).values()) == ["vllm-0", "vllm-1"]
    guarded = chat.condition("ClientsGuarded")
    assert (guarded["status"], guarded["reason"]) == ("True", "EngineKeysRequired")

    writes = control_plane.audit.writes(user=operator.user, namespace=chat.namespace)
    assert not [each for each in writes if each.resource == "pods"]


def test_a_better_draft_is_promoted_on_every_gateway(chat, kubelet):
    digest = kubelet.publish(chat.namespace, "chat", acceptance=0.9)
    status = chat.await_status(lambda status: status.get("history"))

    assert status["history"][0]["outcome"] == "Promoted"
    workers = kubelet.workers(chat.namespace, "inference")
    assert [worker.standin.stable.digest for worker in workers] == [digest, digest]


def test_gateways_follow_the_pods(chat, engine):
    (kept,) = [name for name, of in gateways(chat).items() if of == "vllm-1"]
    engine("vllm-2")
    wait_until(lambda: sorted(gateways(chat).values()) == ["vllm-0", "vllm-1", "vllm-2"])

    chat.delete_object("v1", "pods", "vllm-0")
    wait_until(lambda: sorted(gateways(chat).values()) == ["vllm-1", "vllm-2"])

    # A pod that ends takes its own gateway along, and no other.
    assert gateways(chat)[kept] == "vllm-1"
    chat.await_status(lambda status: status["replicas"] == status["readyReplicas"] == 2)


def test_a_new_pod_of_the_same_name_gets_a_gateway_of_its_own(chat, engine):
    before = set(gateways(chat))
    chat.delete_object("v1", "pods", "vllm-0")
    wait_until(lambda: not chat.is_there("v1", "pods", "vllm-0"))
    engine("vllm-0")

    def is_replaced():
        now = gateways(chat)
        return sorted(now.values()) == ["vllm-0", "vllm-1"] and len(before & set(now)) == 1

    wait_until(is_replaced)


def test_a_pod_follows_the_older_of_two_deployments(chat):
    before = gateways(chat)
    chat.apply("later", **SPEC)
    degraded = wait_until(
        lambda: (
            (found := chat.condition("Degraded", "later")).get("reason") == "EngineTaken" and found
        )
    )
    assert "pod vllm-0 is attached to the AuroraDeployment chat already" in degraded["message"]
    assert chat.pods("inference", "later") == []
    assert gateways(chat) == before

    chat.delete()
    chat.await_status(lambda status: status.get("readyReplicas") == 2, "later")


def test_without_a_pod_the_conditions_name_the_labels(chat):
    for name in ("vllm-0", "vllm-1"):
        chat.delete_object("v1", "pods", name)

    chat.await_status(lambda status: not status.get("replicas"))
    ready = wait_until(lambda: (found := chat.condition("Ready"))["status"] == "False" and found)
    assert ready["reason"] == "InferenceNotReady"
    assert "app=vllm,model=qwen" in ready["message"]
    assert "app=vllm,model=qwen" in chat.condition("Degraded")["message"]


def test_an_operator_that_starts_anew_replaces_no_gateway(chat, operator):
    before = gateways(chat)
    operator.restart()
    chat.annotate("chat", {"note": "have everything checked"})
    chat.await_status(lambda status: status.get("readyReplicas") == 2)

    assert gateways(chat) == before


def test_a_detached_vllm_keeps_running(chat):
    uid = chat.object("v1", "pods", "vllm-0")["metadata"]["uid"]
    chat.delete()

    wait_until(lambda: not chat.pods("inference"))
    assert chat.object("v1", "pods", "vllm-0")["metadata"]["uid"] == uid
