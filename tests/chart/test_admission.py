"""A real API server takes everything that the chart renders, and its rights are what they say."""

import pytest
import yaml

ALL = {
    "podDisruptionBudget": {"enabled": True},
    "dashboards": {"enabled": True},
    "replicaCount": 2,
}
_PLURALS = {"NetworkPolicy": "networkpolicies"}
ACCOUNT = "aurora-operator"


def path(body):
    metadata, kind = body["metadata"], body["kind"]
    root = f"/apis/{body['apiVersion']}" if "/" in body["apiVersion"] else "/api/v1"
    place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{place}/{_PLURALS.get(kind, kind.lower() + 's')}/{metadata['name']}"


def dry_run(server, body):
    query = "dryRun=All&fieldValidation=Strict&fieldManager=test&force=true"
    return server.request("PATCH", f"{path(body)}?{query}", body)


@pytest.mark.parametrize("values", [{}, ALL, {"watchNamespaces": ["default"]}])
def test_every_manifest_is_admitted(control_plane, namespace, objects, values):
    made = objects(values, namespace=namespace)

    for body in made:
        dry_run(control_plane, body)

    # The test's pod is held to `restricted` by itself, the operator's below.
    assert {"Deployment", "Pod", "CustomResourceDefinition"} <= {body["kind"] for body in made}


def test_the_operators_pods_are_restricted(control_plane, namespace, objects):
    values = {"serviceAccount": {"create": False}}
    (deployment,) = (
        body for body in objects(values, namespace=namespace) if body["kind"] == "Deployment"
    )
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": "operator", "namespace": namespace}

    pod = dry_run(
        control_plane,
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]},
    )

    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]


def test_the_quick_starts_models_are_made_by_a_restricted_pod(
    control_plane, namespace, pytestconfig
):
    text = (pytestconfig.rootpath / "examples/kubernetes-models.yaml").read_text()
    claim, job = (
        {**body, "metadata": {**body["metadata"], "namespace": namespace}}
        for body in yaml.safe_load_all(text)
    )
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": job["metadata"]}

    for body in (claim, job, {**pod, "spec": job["spec"]["template"]["spec"]}):
        dry_run(control_plane, body)


@pytest.fixture
def allowed(api_server):
    """Whether the chart's account of a namespace may do something."""

    def allowed(account_namespace, verb, resource, namespace="", group="", name=""):
        resource, _, subresource = resource.partition("/")
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{account_namespace}:{ACCOUNT}",
                "resourceAttributes": {
                    "verb": verb,
                    "resource": resource,
                    "subresource": subresource,
                    "group": group,
                    "namespace": namespace,
                    "name": name,
                },
            },
        }
        url = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return api_server.request("POST", url, review)["status"]["allowed"]

    return allowed


@pytest.fixture
def install(api_server, objects):
    """Makes the roles of a release in a namespace; what is not in it is removed again."""
    made = []

    def install(values, namespace):
        for body in objects(values, namespace=namespace):
            if "rbac" in body["apiVersion"]:
                api_server.request("PATCH", f"{path(body)}?fieldManager=test&force=true", body)
                made.append(body)

    yield install
    for body in made:
        api_server.request("DELETE", path(body))


def test_secrets_are_never_listed(api_namespace, install, allowed):
    install({}, api_namespace)

    assert allowed(api_namespace, "get", "secrets", "elsewhere", name="chat-ca")
    for verb in ("list", "watch", "deletecollection"):
        assert not allowed(api_namespace, verb, "secrets", "elsewhere")


@pytest.mark.parametrize(
    ("verb", "group", "resource"),
    [
        ("patch", "aurora.dev", "auroradeployments"),
        ("delete", "aurora.dev", "auroradeployments"),
        ("get", "", "pods/log"),
        ("create", "", "pods/exec"),
        ("delete", "", "pods"),
        ("list", "", "namespaces"),
        ("get", "", "configmaps"),
        ("delete", "", "persistentvolumeclaims"),
        ("delete", "", "secrets"),
        ("patch", "", "events"),
        ("list", "apiextensions.k8s.io", "customresourcedefinitions"),
        ("create", "rbac.authorization.k8s.io", "roles"),
        ("get", "coordination.k8s.io", "leases"),
    ],
)
def test_nothing_else_is_allowed(api_namespace, install, allowed, verb, group, resource):
    install({}, api_namespace)

    assert not allowed(api_namespace, verb, resource, "elsewhere", group)


def test_of_leases_only_its_own(api_namespace, install, allowed):
    install({}, api_namespace)
    group = "coordination.k8s.io"

    assert allowed(api_namespace, "update", "leases", api_namespace, group, "aurora-operator")
    assert not allowed(api_namespace, "update", "leases", api_namespace, group, "another")


def test_with_a_list_of_namespaces_it_acts_in_those_alone(
    api_server, api_namespace, install, allowed
):
    watched, other = api_server.create_namespace(), api_server.create_namespace()
    install({"watchNamespaces": [watched]}, api_namespace)

    for group, resource in (("", "pods"), ("aurora.dev", "auroradeployments")):
        assert allowed(api_namespace, "watch", resource, watched, group)
        assert not allowed(api_namespace, "watch", resource, other, group)
        assert not allowed(api_namespace, "watch", resource, "", group)


def test_outside_of_namespaces_nothing_is_made_where_that_is_asked(objects):
    values = {
        "watchNamespaces": ["serving"],
        "crds": {"enabled": False},
        "rbac": {"aggregateClusterRoles": False},
    }

    assert all("namespace" in body["metadata"] for body in objects(values))
