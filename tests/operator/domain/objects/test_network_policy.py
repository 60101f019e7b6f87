"""Who reaches whom, and on which ports."""

import pytest
from support.desired import SPECS, deployment, objects


def peers(rules, side):
    """Ports by peer: a component, `any pod`, or `anywhere` where none is named."""
    found = {}
    for rule in rules:
        ports = [port["port"] for port in rule.get("ports", ())]
        for peer in rule.get(side, [None]):
            if peer is None:
                name = "anywhere"
            elif "podSelector" not in peer:
                assert peer == {"namespaceSelector": {}}
                name = "any pod"
            else:
                name = peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            found.setdefault(name, []).extend(ports)
    return found


@pytest.mark.parametrize(
    ("component", "ingress", "egress"),
    [
        (
            "inference",
            {"anywhere": [8000, 9000], "operator": [9001]},
            {"buffer": [9000], "anywhere": [53, 53]},
        ),
        (
            "buffer",
            {"inference": [9000], "trainer": [9000], "any pod": [9090]},
            {"anywhere": [53, 53]},
        ),
        (
            "trainer",
            {"operator": [9000], "any pod": [9090]},
            {"buffer": [9000], "anywhere": [53, 53]},
        ),
    ],
)
def test_only_the_named_peers_reach_the_named_ports(component, ingress, egress):
    policy = objects(deployment())["NetworkPolicy", f"chat-{component}"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    assert peers(policy["ingress"], "from") == ingress
    assert peers(policy["egress"], "to") == egress


def test_ranks_reach_each_other_on_any_port_and_nobody_else_does():
    found = objects(deployment(trainer={"replicas": 2}, security={"trainerTraffic": "Plaintext"}))
    rank, trainer = (found["NetworkPolicy", f"chat-{name}"]["spec"] for name in ("rank", "trainer"))
    assert peers(rank["ingress"], "from") == {"trainer": [], "rank": [], "any pod": [9090]}
    assert peers(rank["egress"], "to") == {"trainer": [], "rank": [], "anywhere": [53, 53]}
    assert peers(trainer["ingress"], "from") == {
        "operator": [9000],
        "any pod": [9090],
        "rank": [],
    }
    assert peers(trainer["egress"], "to")["rank"] == []


def test_no_operator_but_that_of_the_installation_reaches_the_control_port():
    rules = objects(deployment())["NetworkPolicy", "chat-inference"]["spec"]["ingress"]
    (peer,) = next(rule["from"] for rule in rules if "from" in rule)
    assert peer["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "aurora-system"
    }


def test_where_an_external_redis_lives_no_policy_can_know():
    found = objects(deployment(**SPECS["external Redis"]))
    assert found["NetworkPolicy", "chat-buffer"]["spec"]["egress"] == [{}]


def test_only_the_peers_of_clients_reach_their_ports():
    peer = {"namespaceSelector": {"matchLabels": {"team": "apps"}}}
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    made = deployment(security={"clientPeers": [peer, block]})

    first, _ = objects(made)["NetworkPolicy", "chat-inference"]["spec"]["ingress"]

    assert first["from"] == [peer, block]
    assert [port["port"] for port in first["ports"]] == [8000, 9000]
