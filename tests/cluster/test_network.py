"""IP families of Services, and pods that are copied for debugging, on a real API server."""

import subprocess

import pytest
from support.desired import deployment, objects

from aurora_operator.cluster.kinds import CHILDREN, POD
from aurora_operator.domain.objects.drift import needs_apply


@pytest.fixture
def apply(api_server, api_namespace):
    """Applies a deployment's objects of some kinds as the operator does; the live ones by name."""

    def apply(*kinds, **spec):
        lives = {}
        wanted = objects(deployment(namespace=api_namespace, **spec))
        for (kind, name), made in wanted.items():
            if kind in kinds:
                path = f"{CHILDREN[kind].path(api_namespace, name)}"
                query = "fieldManager=aurora-operator&force=true"
                lives[name] = api_server.request("PATCH", f"{path}?{query}", made)
                assert not needs_apply(made, lives[name])
        return lives

    return apply


def families(services):
    return {tuple(body["spec"]["ipFamilies"]) for body in services.values()}


def test_services_have_the_families_that_are_asked_for(apply):
    """The cluster has both; IPv4 is its first."""
    names = {"chat-inference", "chat-inference-pods", "chat-buffer", "chat-trainer"}
    for policy, expected in (
        (None, ("IPv4",)),
        ("PreferDualStack", ("IPv4", "IPv6")),
        ("SingleStack", ("IPv4",)),
        ("RequireDualStack", ("IPv4", "IPv6")),
    ):
        network = {} if policy is None else {"ipFamilyPolicy": policy}
        services = apply("Service", network=network)
        assert set(services) == names
        assert families(services) == {expected}
    addresses = services["chat-inference"]["spec"]["clusterIPs"]
    assert [":" in address for address in addresses] == [False, True]


def test_taking_the_choice_back_needs_no_person(apply):
    apply("Service", network={"ipFamilyPolicy": "PreferDualStack"})
    assert families(apply("Service")) <= {("IPv4",), ("IPv4", "IPv6")}


def test_a_pod_can_be_copied_to_debug_it(apply, api_server, api_namespace, kubectl):
    apply("ServiceAccount")
    template = apply("Deployment")["chat-inference"]["spec"]["template"]
    # As its ReplicaSet makes it.
    labels = {**template["metadata"]["labels"], "pod-template-hash": "abc"}
    pod = {"metadata": {"name": "chat-inference-abc", "labels": labels}, "spec": template["spec"]}
    api_server.request("POST", POD.path(api_namespace), pod)

    command = ["debug", "chat-inference-abc", "--copy-to=copy", "--container=shell"]
    told = subprocess.run(
        [
            *(kubectl, f"--kubeconfig={api_server.kubeconfig}", f"--namespace={api_namespace}"),
            *(*command, "--image=busybox", "--profile=restricted", "--attach=false"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert told.returncode == 0, told.stderr
    copy = api_server.request("GET", POD.path(api_namespace, "copy"))
    (spread,) = copy["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
