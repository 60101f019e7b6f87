"""The chart starts the operator with arguments that it understands."""

import pytest

from aurora_operator import __main__ as operator
from aurora_operator.cluster import process
from aurora_operator.cluster.claims import CLAIM_NAME
from aurora_operator.domain.objects.metadata import MANAGER


def container(objects, values):
    (deployment,) = (body for body in objects(values) if body["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("watched", "namespaces"),
    [([], ("aurora-system",)), (["serving", "research"], ("serving", "research")), (["*"], ())],
)
def test_the_arguments_are_the_operators(objects, monkeypatch, watched, namespaces):
    started = []

    async def operate(options):
        started.append(options)
        return 0

    monkeypatch.setattr(process, "operate", operate)
    images = {"pullSecrets": [{"name": "one"}, {"name": "two"}]}
    made = container(objects, {"watchNamespaces": watched, "images": images})

    assert made["command"] == ["python", "-m", "aurora_operator"]
    assert operator.main(made["args"]) == 0
    (options,) = started
    assert options.namespaces == namespaces
    assert options.lease_namespace == "aurora-system"
    assert options.lease_name.startswith(MANAGER)
    assert options.setting.trainer_image == "aurora-trainer:0.1.0"
    assert options.setting.image_pull_secrets == ("one", "two")
    # On all interfaces, on the ports that probes and monitors use.
    ports = {port["name"]: port["containerPort"] for port in made["ports"]}
    assert options.health_listen == f"[::]:{ports['health']}"
    assert options.metrics_listen == f"[::]:{ports['metrics']}"


def test_its_pods_may_call_the_control_ports(objects):
    (deployment,) = (body for body in objects({}) if body["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    # The network policies that the operator creates select it by these.
    assert operator._OPERATOR_LABELS.items() <= labels.items()


def lease(objects, watched):
    """The Lease that the operator is given, which it may write."""
    values = {"watchNamespaces": watched}
    (role,) = (
        body
        for body in objects(values)
        if body["kind"] == "Role" and body["metadata"]["name"].endswith("-lease")
    )
    (name,) = (
        argument.removeprefix("--lease-name=")
        for argument in container(objects, values)["args"]
        if argument.startswith("--lease-name=")
    )
    assert [name] in [rule.get("resourceNames") for rule in role["rules"]]
    return name


def test_each_set_of_namespaces_has_its_own_lease(objects):
    assert lease(objects, ["*"]) == MANAGER
    assert lease(objects, []) == lease(objects, ["aurora-system"])
    assert lease(objects, ["a", "b"]) == lease(objects, ["b", "a"])
    assert len({lease(objects, watched) for watched in (["*"], ["a"], ["b"], ["a", "b"])}) == 4


@pytest.mark.parametrize(
    ("watched", "places"),
    [([], ["aurora-system"]), (["serving"], ["serving"]), (["*"], [None])],
)
def test_it_may_claim_the_namespaces_that_it_manages(objects, watched, places):
    roles = [
        body
        for body in objects({"watchNamespaces": watched})
        if body["kind"] in ("Role", "ClusterRole") and body["metadata"]["name"].endswith("operator")
    ]

    assert [body["metadata"].get("namespace") for body in roles] == places
    for body in roles:
        names = {name for rule in body["rules"] for name in rule.get("resourceNames", ())}
        assert names == {CLAIM_NAME}


def test_a_digest_wins_over_a_tag(objects):
    digest = "sha256:" + "1" * 64
    images = {
        "registry": "registry.example.com:5000/a/",
        "operator": {"tag": "x", "digest": digest},
    }

    image = container(objects, {"images": images})["image"]

    assert image == f"registry.example.com:5000/a/aurora-operator@{digest}"
