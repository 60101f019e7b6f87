"""A vLLM on several nodes, with LeaderWorkerSet's own controllers."""

import pytest
from support.deployments import wait_until
from support.desired import NODES
from support.leader_worker_sets import VERSION

from aurora_operator.cluster.fleet import is_run_by
from aurora_operator.cluster.kinds import Key


@pytest.fixture
def chat(deployments, kubelet, operator):
    """Two groups of two pods are asked for."""
    deployments.apply(replicas=2, **NODES)
    operator.start(namespaces=[deployments.namespace])
    return deployments


def pods(deployments, component):
    return {pod["metadata"]["name"]: pod for pod in deployments.pods(component)}


def environment(pod, container):
    containers = (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
    (found,) = (each for each in containers if each["name"] == container)
    return {each["name"]: each.get("value") for each in found["env"]}


def test_without_its_controller_the_deployment_says_what_is_missing(chat):
    status = chat.await_status(
        lambda status: any(
            "LeaderWorkerSet is not installed" in each["message"]
            for each in status.get("conditions", ())
            if (each["type"], each["status"]) == ("Degraded", "True")
        )
    )
    assert status["conditions"]


def test_groups_are_made_led_scaled_suspended_and_replaced(leader_worker_sets, chat, kubelet):
    leaders = {"chat-inference-0", "chat-inference-1"}
    others = {"chat-inference-0-1", "chat-inference-1-1"}
    wait_until(lambda: set(pods(chat, "inference")) == leaders, why=leader_worker_sets.log)
    wait_until(lambda: set(pods(chat, "node")) == others, why=leader_worker_sets.log)
    key = Key(chat.namespace, "chat")
    for component, rank in (("inference", "0"), ("node", "1")):
        for name, pod in pods(chat, component).items():
            # By its controller the operator knows that the pod is no stray one.
            assert is_run_by(pod, key) == (component == "inference")
            found = environment(pod, "vllm")
            group = name[: len("chat-inference-0")]
            assert found["LWS_LEADER_ADDRESS"] == f"{group}.{group}.{chat.namespace}"
            assert found["LWS_WORKER_INDEX"] == rank
    before = chat.object(VERSION, "leaderworkersets", "chat-inference")
    assert before["metadata"]["generation"] == 1

    chat.steer(replicas=1)
    wait_until(lambda: set(pods(chat, "inference")) == {"chat-inference-0"})

    chat.steer(suspend=True)
    wait_until(lambda: not pods(chat, "inference") and not pods(chat, "node"))

    chat.steer(suspend=False)
    chat.apply(replicas=1, **{**NODES, "engine": {"type": "vllm"}})
    wait_until(lambda: chat.is_there("apps/v1", "deployments", "chat-inference"))
    wait_until(lambda: not chat.is_there(VERSION, "leaderworkersets", "chat-inference"))
    wait_until(lambda: not pods(chat, "node"))
