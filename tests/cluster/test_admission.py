"""What the API server refuses is what the command line refuses, in words that name the field."""

import copy
import json
import subprocess

import pytest
import yaml
from kubernetes.client.exceptions import ApiException
from support.manifest import BAD, MINIMAL, changed

from aurora_operator.domain.manifest import parse_manifest

# The API server's own words for what the command line words otherwise.
_SERVER_SAYS = {
    "is required": "Required value",
    "allowed:": "supported values",
    "known fields": "unknown field",
    "did you mean": "unknown field",
    "unknown field": "unknown field",
}
# What a manifest of a cluster may hold and what only kubectl sees.
_NOT_ADMISSION = {"status", "apiVersion", "kind"}
CASES = [case for case in BAD if case[0] not in _NOT_ADMISSION]


@pytest.fixture
def create(api_server, kubectl, api_namespace):
    """`kubectl create --dry-run=server`, as people's mistakes reach the API server."""

    def create(document):
        return subprocess.run(
            [
                kubectl,
                f"--kubeconfig={api_server.kubeconfig}",
                f"--namespace={api_namespace}",
                *("create", "--dry-run=server", "--output=json", "--filename=-"),
            ],
            input=json.dumps(document),
            text=True,
            capture_output=True,
            timeout=60,
        )

    return create


@pytest.mark.parametrize(
    ("path", "value", "where", "says"), CASES, ids=[f"{case[0]}={case[1]}" for case in CASES]
)
def test_refused(create, path, value, where, says):
    refused = create(changed(path, value))
    assert refused.returncode != 0
    # Of a rule over an object, the object is named; of an unset field, the field.
    last = where.rpartition(".")[2].partition("[")[0]
    assert last in refused.stderr
    for ours, theirs in _SERVER_SAYS.items():
        if says.startswith(ours):
            assert theirs in refused.stderr


def test_there_are_enough_cases():
    assert len(CASES) >= 60


def test_the_defaults_are_the_command_lines(create):
    stored = create(MINIMAL)
    assert stored.returncode == 0, stored.stderr
    found = json.loads(stored.stdout)["spec"]
    document = {**MINIMAL, "spec": found}
    from_cluster = parse_manifest(yaml.safe_dump(document), "the API server's")
    assert from_cluster == parse_manifest(yaml.safe_dump(MINIMAL), "ours")


@pytest.mark.parametrize("name", ["local", "kubernetes", "kubernetes-quickstart"])
def test_the_examples_are_admitted(create, name, pytestconfig):
    path = pytestconfig.rootpath / f"examples/{name}.yaml"
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] == "AuroraDeployment":
            document["metadata"].pop("namespace", None)
            admitted = create(document)
            assert admitted.returncode == 0, admitted.stderr


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("target", "uri"), "file:///other", "uri is immutable"),
        (("target", "dtype"), "float32", "dtype is immutable"),
        (("modelStore", "pvc", "claimName"), "other", "claimName is immutable"),
        (("buffer", "embedded", "storage"), "1Gi", "storage is immutable"),
        (("buffer", "embedded", "storageClassName"), "fast", "storageClassName is immutable"),
    ],
)
def test_what_is_immutable_stays(api_server, api_namespace, path, value, says):
    objects = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    stored = api_server.request("POST", objects, MINIMAL)
    changed_object = copy.deepcopy(stored)
    place = changed_object["spec"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ApiException) as refused:
        api_server.request("PUT", f"{objects}/chat", changed_object)
    assert says in refused.value.body


def test_the_scale_subresource_is_the_replicas(api_server, api_namespace, kubectl):
    objects = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    api_server.request("POST", objects, MINIMAL)
    access = [f"--kubeconfig={api_server.kubeconfig}", f"--namespace={api_namespace}"]
    subprocess.run([kubectl, *access, "scale", "adep/chat", "--replicas=3"], check=True, timeout=60)
    assert api_server.request("GET", f"{objects}/chat")["spec"]["replicas"] == 3


def test_kubectl_lists_the_columns_and_explains_the_fields(api_server, api_namespace, kubectl):
    objects = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    api_server.request("POST", objects, MINIMAL)
    access = [f"--kubeconfig={api_server.kubeconfig}", f"--namespace={api_namespace}"]

    def told(*arguments):
        return subprocess.run(
            [kubectl, *access, *arguments], text=True, capture_output=True, timeout=60, check=True
        ).stdout

    columns = told("get", "all,aurora").splitlines()[0].split()
    assert columns == ["NAME", "READY", "STABLE", "CANDIDATE", "STATE", "EVIDENCE", "AGE"]
    explained = told("explain", "auroradeployment.spec.rollout.analysis.alpha")
    assert "may ever be promoted" in " ".join(explained.split())
