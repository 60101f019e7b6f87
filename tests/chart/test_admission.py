"""A real API server admits everything that the chart renders, and grants exactly its rights."""

import pytest

ALL = {
    "podDisruptionBudget": {"enabled": True},
    "dashboards": {"enabled": True},
    "replicaCount": 2,
}
EVERYWHERE = {"watchNamespaces": ["*"]}
ACCOUNT = "aurora-operator"


def path(body):
    metadata, kind = body["metadata"], body["kind"]
    root = f"/apis/{body['apiVersion']}" if "/" in body["apiVersion"] else "/api/v1"
    place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    plural = f"{kind.lower().removesuffix('y')}{'ies' if kind.endswith('y') else 's'}"
    return f"{root}{place}/{plural}/{metadata['name']}"


def dry_run(server, body):
    query = "dryRun=All&fieldValidation=Strict&fieldManager=test&force=true"
    return server.request("PATCH", f"{path(body)}?{query}", body)


@pytest.mark.parametrize("values", [{}, ALL, EVERYWHERE, {"watchNamespaces": ["default"]}])
def test_every_manifest_is_admitted(control_plane, namespace, objects, values):
    made = objects(values, namespace=namespace)

    for body in made:
        dry_run(control_plane, body)

    # Only the `helm test` pod is checked against `restricted` here; the operator's pods are below.
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


def quick_start(objects, namespace, **values):
    """The claim and the Job that train models."""
    made = objects({"quickstart": {"namespace": namespace}, **values})
    found = {body["kind"]: body for body in made}
    return found["PersistentVolumeClaim"], found["Job"]


def test_the_quick_start_trains_its_models_in_a_restricted_pod(control_plane, namespace, objects):
    claim, job = quick_start(objects, namespace)
    metadata = {"name": "models", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}

    for body in (claim, job, {**pod, "spec": job["spec"]["template"]["spec"]}):
        dry_run(control_plane, body)


def test_another_image_is_another_job(objects):
    _, job = quick_start(objects, "default")
    _, other = quick_start(objects, "default", images={"registry": "registry.example.com"})
    assert job["metadata"]["name"] != other["metadata"]["name"]
    assert quick_start(objects, "default")[1]["metadata"]["name"] == job["metadata"]["name"]


def test_a_private_registry_needs_values_alone(objects):
    """Every image of the README's block has its prefix, and every pod the Secret for it."""
    registry = "registry.example.com/team"
    images = {"registry": registry, "pullSecrets": [{"name": "registry"}]}
    made = objects({"images": images, "quickstart": {"namespace": "default"}})
    specs = [
        body["spec"]["template"]["spec"] for body in made if "template" in body.get("spec", {})
    ]
    specs += [body["spec"] for body in made if body["kind"] == "Pod"]
    assert len(specs) == 3
    for spec in specs:
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert all(each["image"].startswith(f"{registry}/") for each in spec["containers"])
    (operator,) = (body for body in made if body["kind"] == "Deployment")
    (arguments,) = (each["args"] for each in operator["spec"]["template"]["spec"]["containers"])
    assert "--image-pull-secret=registry" in arguments
    given = [each for each in arguments if each.endswith("-image") or "-image=" in each]
    assert len(given) == 3
    assert all(each.split("=")[1].startswith(f"{registry}/") for each in given)


@pytest.fixture
def allowed(api_server):
    """Whether the chart's ServiceAccount in a namespace is allowed to do something."""

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
    """Creates a release's RBAC objects; deletes them afterwards."""
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
    install(EVERYWHERE, api_namespace)

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
    install(EVERYWHERE, api_namespace)

    assert not allowed(api_namespace, verb, resource, "elsewhere", group)


def test_by_default_its_rights_are_limited_to_its_own_namespace(api_namespace, install, allowed):
    install({}, api_namespace)

    for group, verb, resource in (
        ("", "get", "secrets"),
        ("apps", "create", "deployments"),
        ("aurora.dev", "watch", "auroradeployments"),
    ):
        assert allowed(api_namespace, verb, resource, api_namespace, group)
        assert not allowed(api_namespace, verb, resource, "elsewhere", group)
        assert not allowed(api_namespace, verb, resource, "", group)


def test_it_may_update_only_its_own_lease(api_namespace, install, allowed):
    install(EVERYWHERE, api_namespace)
    group = "coordination.k8s.io"

    assert allowed(api_namespace, "update", "leases", api_namespace, group, "aurora-operator")
    assert not allowed(api_namespace, "update", "leases", api_namespace, group, "another")


def test_its_rights_are_limited_to_the_watched_namespaces(
    api_server, api_namespace, install, allowed
):
    watched, other = api_server.create_namespace(), api_server.create_namespace()
    install({"watchNamespaces": [watched]}, api_namespace)

    for group, resource in (("", "pods"), ("aurora.dev", "auroradeployments")):
        assert allowed(api_namespace, "watch", resource, watched, group)
        assert not allowed(api_namespace, "watch", resource, other, group)
        assert not allowed(api_namespace, "watch", resource, "", group)


def test_cluster_scoped_objects_can_be_avoided(objects):
    values = {
        "watchNamespaces": ["serving"],
        "crds": {"enabled": False},
        "rbac": {"aggregateClusterRoles": False},
        "tenancy": {"podTemplate": "Unrestricted", "limitOperator": False},
    }

    assert all("namespace" in body["metadata"] for body in objects(values))
