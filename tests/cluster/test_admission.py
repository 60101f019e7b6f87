"""The API server refuses what the command line refuses, with messages that name the field."""

import copy
import json
import subprocess

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from kubernetes.client.exceptions import ApiException
from support.generated import manifests
from support.manifest import BAD, MINIMAL, changed
from support.status import STATUSES

from aurora_operator.domain.manifest.parser import deployment_from_object, parse_manifest
from aurora_operator.domain.manifest.quantity import parse_bytes
from aurora_operator.domain.status.status_json import status_to_json

# Messages of the API server that differ from the command line's.
_SERVER_SAYS = {
    "is required": "Required value",
    "is not a string": "Required value",
    "allowed: ": "supported values",
    "KeepStable": "supported values",
    "known fields": "unknown field",
    "did you mean": "unknown field",
    "at least ": "greater than or equal to",
    "at most ": "less than or equal to",
    "at most 1024": "Too long: may not be more than 1024",
    "1 to 20": "spec.rollout.steps",
    "is not a list": "unknown field",
    "in quotes": "string",
    'quotes: "': "string",
    "is not an object": "of type",
    "not an object": "must be of type object",
    "whole number": "must be of type",
    "is not true or false": "must be of type boolean",
    "of embedded and external": "set exactly one of embedded and external",
    "embedded: {}": "set exactly one of embedded and external",
    "of url and urlSecretRef": "set exactly one of url and urlSecretRef",
    "weights must increase": "weightPercent must increase",
    "has several entries": "Duplicate value",
    "is below minReplicas": "maxReplicas must not be below minReplicas",
    "batchSize, which is": "replicas must not be above hyperparameters.batchSize",
    " issuerRef": "issuerRef must be set if and only if mode is CertManager",
    "null is not an object": "metadata.name: Required value",
    "lower-case letters": "RFC 1123",
}
# Fields that a local manifest may not have, or only kubectl sees.
_NOT_ADMISSION = {"apiVersion", "kind"}
CASES = [case for case in BAD if case[0] not in _NOT_ADMISSION]


@pytest.fixture
def create(api_server, kubectl, api_namespace):
    """`kubectl create --dry-run=server`: how people's mistakes reach the API server."""

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
    # For an increasing list the API server names the list, and for a label the labels.
    named = where.replace("[1].weightPercent", "").removesuffix(".a")
    assert named in refused.stderr
    words = [theirs for ours, theirs in _SERVER_SAYS.items() if ours in says]
    assert any(text in refused.stderr for text in (says, *words)), refused.stderr


def test_there_are_enough_cases():
    assert len(CASES) >= 60


def test_the_defaults_are_the_command_lines(create):
    stored = create(MINIMAL)
    assert stored.returncode == 0, stored.stderr
    spec = json.loads(stored.stdout)["spec"]
    dumped = parse_manifest(json.dumps(MINIMAL), "ours").spec.model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    # An empty object equals its absence, and is not stored.
    assert spec == _without_empty(dumped)


def _without_empty(value):
    if not isinstance(value, dict):
        return value
    inner = {key: _without_empty(one) for key, one in value.items()}
    return {key: one for key, one in inner.items() if one != {}}


def test_a_quantity_may_have_an_exponent(create):
    resources = {"limits": {"memory": 2e9, "cpu": "2e0"}}
    document = changed("spec.inference.resources", resources)
    document["spec"]["buffer"]["retention"] = {"maxBytes": "2e9"}
    stored = create(document)
    assert stored.returncode == 0, stored.stderr
    spec = deployment_from_object(json.loads(stored.stdout)).spec
    assert parse_bytes(spec.inference.resources.limits["memory"]) == 2_000_000_000
    assert spec.buffer.retained_bytes == 2_000_000_000


@pytest.mark.parametrize("url", ["redis://:word@redis/0", "rediss://me:word@redis:6379/0"])
def test_a_password_belongs_in_a_secret(create, url):
    refused = create(changed("spec.buffer", {"external": {"url": url}}))
    assert refused.returncode != 0
    assert "spec.buffer.external.url" in refused.stderr
    assert "use urlSecretRef" in refused.stderr
    accepted = create(changed("spec.buffer", {"external": {"url": "redis://me@redis/0"}}))
    assert accepted.returncode == 0, accepted.stderr


def test_an_absent_value_may_be_written_as_null(create):
    document = changed("spec.buffer.external", None)
    stored = create(document)
    assert stored.returncode == 0, stored.stderr
    assert "external" not in json.loads(stored.stdout)["spec"]["buffer"]
    parse_manifest(json.dumps(document), "ours")


@given(manifests())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_api_server_admits_what_the_command_line_admits(api_server, api_namespace, manifest):
    path = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments?dryRun=All"
    stored = api_server.request("POST", path, manifest)
    read = deployment_from_object(stored)
    assert read.spec == parse_manifest(json.dumps(manifest), "generated").spec


def test_a_status_is_stored_whole(api_server, api_namespace):
    objects = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    stored = api_server.request("POST", objects, MINIMAL)
    for status in STATUSES:
        written = json.loads(status_to_json(status))
        stored = api_server.request("PUT", f"{objects}/chat/status", {**stored, "status": written})
        assert stored["status"] == written


@pytest.mark.parametrize(
    "name", ["local", "kubernetes", "kubernetes-quickstart", "vllm", "vllm-attached"]
)
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
        (("buffer", "embedded", "storage"), "1Gi", "storage must not shrink"),
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


def test_storage_may_grow(api_server, api_namespace):
    objects = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    stored = api_server.request("POST", objects, MINIMAL)
    stored["spec"]["buffer"]["embedded"]["storage"] = "20.5Gi"
    stored = api_server.request("PUT", f"{objects}/chat", stored)
    assert stored["spec"]["buffer"]["embedded"]["storage"] == "20.5Gi"


@pytest.mark.parametrize(
    "buffer",
    [
        {"embedded": {"storage": "1Gi"}, "retention": {"maxBytes": "409Mi"}},
        {"embedded": {"storage": "5Gi"}, "retention": {"maxBytes": "2Gi"}},
        {
            "embedded": {"storage": "40Gi", "resources": {"limits": {"memory": "32Gi"}}},
            "retention": {"maxBytes": "16Gi"},
        },
        {"external": {"url": "redis://redis/0"}, "retention": {"maxBytes": "1Ti"}},
    ],
)
def test_what_fits_storage_and_memory_is_admitted(create, buffer):
    document = changed("spec.buffer", buffer)
    admitted = create(document)
    assert admitted.returncode == 0, admitted.stderr
    parse_manifest(json.dumps(document), "ours")


def test_an_external_redis_may_replace_the_embedded_one(api_server, api_namespace):
    objects = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    stored = api_server.request("POST", objects, MINIMAL)
    del stored["spec"]["buffer"]["embedded"]
    stored["spec"]["buffer"]["external"] = {"url": "redis://redis:6379/0"}
    stored = api_server.request("PUT", f"{objects}/chat", stored)
    assert "embedded" not in stored["spec"]["buffer"]


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

    def output(*arguments):
        return subprocess.run(
            [kubectl, *access, *arguments], text=True, capture_output=True, timeout=60, check=True
        ).stdout

    columns = output("get", "all,aurora").splitlines()[0].split()
    assert columns == [
        *("NAME", "READY", "REASON", "REPLICAS", "STABLE", "CANDIDATE", "STATE", "EVIDENCE", "AGE")
    ]
    explained = output("explain", "auroradeployment.spec.rollout.analysis.alpha")
    assert "is ever promoted" in " ".join(explained.split())
