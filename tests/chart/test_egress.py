"""The operator may call the API server at its addresses alone, as far as Helm can look them up."""

import json
import subprocess

import pytest
import yaml

SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "api", "labels": {"kubernetes.io/service-name": "kubernetes"}},
    "addressType": "IPv4",
    "ports": [{"name": "https", "port": 6443}],
    "endpoints": [{"addresses": ["192.0.2.7"]}, {"addresses": ["192.0.2.8"]}],
}
SIX = {
    **SLICE,
    "metadata": {"name": "api-6", "labels": SLICE["metadata"]["labels"]},
    "addressType": "IPv6",
    "endpoints": [{"addresses": ["2001:db8::7"]}],
}
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def to_the_api_server(documents):
    """The rule for the API server of the operator's NetworkPolicy."""
    (policy,) = (each for each in documents if each and each["kind"] == "NetworkPolicy")
    (rule,) = (
        rule
        for rule in policy["spec"]["egress"]
        if {port["port"] for port in rule["ports"]} & {6443}
    )
    return rule


@pytest.fixture
def looked_up(helm, api_server, api_namespace, chart):
    """The manifests of a server-side dry run, in which Helm looks things up."""
    for body in (SLICE, SIX):
        path = f"{SLICES}/{body['metadata']['name']}?fieldManager=test&force=true"
        api_server.request("PATCH", path, body)
    result = subprocess.run(
        [
            *(helm, "install", "aurora", chart, "--dry-run=server", "--output=json"),
            *("--namespace", api_namespace, "--kubeconfig", api_server.kubeconfig),
            "--set=crds.enabled=false",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    for body in (SLICE, SIX):
        api_server.request("DELETE", f"{SLICES}/{body['metadata']['name']}")
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(json.loads(result.stdout)["manifest"]))


def test_its_addresses_are_looked_up(looked_up):
    # The first is the Service's.
    assert to_the_api_server(looked_up)["to"] == [
        {"ipBlock": {"cidr": cidr}}
        for cidr in ("10.96.0.1/32", "192.0.2.7/32", "192.0.2.8/32", "2001:db8::7/128")
    ]


def test_they_may_be_given(objects):
    cidrs = ["10.0.0.0/28", "2001:db8::/64"]
    made = objects({"networkPolicy": {"apiServerAddresses": cidrs}})

    rule = to_the_api_server(made)

    assert rule["to"] == [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


def test_without_them_any_address_is_allowed_on_its_ports(objects):
    rule = to_the_api_server(objects({}))

    assert "to" not in rule
    assert [port["port"] for port in rule["ports"]] == [443, 6443]
