"""A vLLM on several nodes: a LeaderWorkerSet; of its pods, leaders alone are found as inference."""

import pytest
from support.desired import NODES, SPECS, deployment, objects

from aurora_operator.domain.objects.metadata import selector

INFERENCE, NODE = (selector(deployment(), component) for component in ("inference", "node"))
TEMPLATE = {
    "spec": {
        "nodeSelector": {"gpu": "h200"},
        "initContainers": [{"name": "inference", "env": [{"name": "A", "value": "1"}]}],
        "containers": [{"name": "vllm", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}],
    }
}


@pytest.fixture
def made():
    return lambda **spec: objects(deployment(**{**NODES, **spec}))


@pytest.fixture
def templates(made):
    """The template of the pod that leads, and that of the others."""

    def templates(**spec):
        group = made(**spec)["LeaderWorkerSet", "chat-inference"]["spec"]["leaderWorkerTemplate"]
        return group["leaderTemplate"], group["workerTemplate"]

    return templates


def names(containers):
    return [each["name"] for each in containers]


def test_it_takes_the_place_of_the_deployment(made):
    found = made(replicas=3)
    group = found["LeaderWorkerSet", "chat-inference"]["spec"]
    assert ("Deployment", "chat-inference") not in found
    assert group["replicas"] == 3
    assert group["leaderWorkerTemplate"]["size"] == 2
    assert group["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
    # Else its controller would want a headless Service of the name that the clients' one has.
    assert group["networkConfig"] == {"subdomainPolicy": "UniquePerReplica"}
    assert ("Service", "chat-inference") in found


def test_one_node_is_a_deployment(made):
    found = made(engine={**NODES["engine"], "nodes": 1})
    assert ("Deployment", "chat-inference") in found
    assert not [name for kind, name in found if kind == "LeaderWorkerSet"]


def test_the_leader_is_the_pod_of_a_single_node_but_for_the_flag(made, templates):
    alone = made(engine={**NODES["engine"], "nodes": 1})["Deployment", "chat-inference"]
    leader, _ = templates()
    prepare = leader["spec"]["initContainers"][0]
    command = prepare["command"]
    at = command.index("--nodes")
    assert command[at + 1] == "2"
    prepare["command"] = command[:at] + command[at + 2 :]
    assert leader == alone["spec"]["template"]


def test_the_others_have_neither_gateway_nor_secrets(templates):
    leader, rest = templates()
    assert names(leader["spec"]["initContainers"]) == ["prepare", "inference"]
    assert names(rest["spec"]["initContainers"]) == ["prepare"]
    assert names(rest["spec"]["containers"]) == ["vllm"]
    assert rest["spec"]["initContainers"][0] == leader["spec"]["initContainers"][0]
    assert not [each for each in rest["spec"]["volumes"] if "secret" in each]
    # It would ask a gateway that is not there.
    assert "lifecycle" not in rest["spec"]["containers"][0]


def test_only_the_leader_is_found_as_inference(made, templates):
    leader, rest = (template["metadata"]["labels"] for template in templates())
    for labels, own, other in ((leader, INFERENCE, NODE), (rest, NODE, INFERENCE)):
        assert own.items() <= labels.items()
        assert not other.items() <= labels.items()
    for place in (("Service", "chat-inference"), ("Service", "chat-inference-pods")):
        assert made()[place]["spec"]["selector"] == INFERENCE


def test_the_users_template_is_that_of_both_but_for_the_gateway(templates):
    for template in templates(inference={"podTemplate": TEMPLATE}):
        spec = template["spec"]
        assert spec["nodeSelector"] == {"gpu": "h200"}
        assert {"name": "NCCL_DEBUG", "value": "INFO"} in spec["containers"][0]["env"]
        assert names(spec["initContainers"]) in (["prepare", "inference"], ["prepare"])


def test_a_groups_pods_reach_each_other_and_nobody_else(made):
    found = made()
    node = found["NetworkPolicy", "chat-node"]["spec"]
    group = [{"podSelector": {"matchLabels": labels}} for labels in (INFERENCE, NODE)]
    assert node["podSelector"]["matchLabels"] == NODE
    assert node["ingress"] == [{"from": group}]
    assert node["egress"][0] == {"to": group}
    inference = found["NetworkPolicy", "chat-inference"]["spec"]
    assert {"from": group[1:]} in inference["ingress"]
    assert {"to": group[1:]} in inference["egress"]
    assert ("NetworkPolicy", "chat-node") not in objects(deployment(**SPECS["vllm"]))


def test_suspended_it_has_no_group(made):
    assert made(suspend=True)["LeaderWorkerSet", "chat-inference"]["spec"]["replicas"] == 0
