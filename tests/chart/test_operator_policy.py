"""What the operator's account may write is limited to objects of AuroraDeployments."""

import json

import pytest
import yaml
from kubernetes.client.exceptions import ApiException
from support.control_plane import client_of, request
from support.deployments import wait_until
from support.operator_process import install_rights

LABELS = {
    "app.kubernetes.io/name": "aurora",
    "app.kubernetes.io/instance": "chat",
    "app.kubernetes.io/managed-by": "aurora-operator",
}
OWNERS = [
    {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "name": "chat",
        "uid": "b7c5a3a0-0000-4000-8000-000000000000",
        "controller": True,
    }
]
OURS = {"labels": LABELS, "ownerReferences": OWNERS}
ACCOUNT = {"kubernetes.io/service-account.name": "admin"}


@pytest.fixture(scope="module")
def stolen(api_server, helm):
    """A client with the operator's identity, and its release's namespace."""
    # A short name: a certificate has room for 64 characters of the user's.
    namespace = api_server.create_namespace()
    client = client_of(api_server.kubeconfig_of(install_rights(api_server, helm, namespace)))
    wait_until(
        lambda: "AuroraDeployments" in refusal(client, namespace, "secrets", secret()),
        why=lambda: "the policy is in force",
    )
    yield client, namespace
    client.close()


def secret(kind="Opaque", **metadata):
    return {"metadata": {"name": "made", **metadata}, "type": kind}


def workload(pod=None, container=None):
    """A Deployment as the operator makes it, with changes to its pods and their container."""
    spec = {
        "serviceAccountName": "chat",
        "automountServiceAccountToken": False,
        "containers": [{"name": "a", "image": "a", **(container or {})}],
        **(pod or {}),
    }
    labels = {"app": "a"}
    return {
        "metadata": {"name": "made", **OURS},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def refusal(client, namespace, plural, body):
    """Why a write is refused; empty if it is not."""
    root = "/apis/apps/v1" if plural == "deployments" else "/api/v1"
    path = f"{root}/namespaces/{namespace}/{plural}?dryRun=All"
    try:
        request(client, "POST", path, body)
        return ""
    except ApiException as error:
        refused = error
    assert refused.status == 403, refused.body
    return json.loads(refused.body)["message"]


@pytest.mark.parametrize("kind", ["Opaque", "kubernetes.io/tls"])
def test_it_may_write_secrets_of_deployments(stolen, kind):
    client, namespace = stolen
    body = {**secret(kind, **OURS), "data": {"tls.crt": "", "tls.key": ""}}

    assert refusal(client, namespace, "secrets", body) == ""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            {**secret("kubernetes.io/service-account-token", **OURS, annotations=ACCOUNT)},
            "of the types Opaque and kubernetes.io/tls",
        ),
        (secret("bootstrap.kubernetes.io/token", **OURS), "of the types Opaque"),
        (secret("example.com/mine", **OURS), "of the types Opaque"),
        (secret(), "may only write objects of AuroraDeployments"),
        (secret(labels=LABELS), "may only write objects of AuroraDeployments"),
        (secret(ownerReferences=OWNERS), "may only write objects of AuroraDeployments"),
    ],
)
def test_it_may_write_no_other_secret(stolen, body, says):
    client, namespace = stolen

    assert says in refusal(client, namespace, "secrets", body)
    assert says in refusal(client, "kube-system", "secrets", body)


def test_it_may_not_take_over_what_others_made(api_server, stolen):
    client, namespace = stolen
    path = f"/api/v1/namespaces/{namespace}/secrets"
    api_server.request("POST", path, {"metadata": {"name": "theirs"}})
    ours = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs", **OURS}}

    with pytest.raises(ApiException) as refused:
        request(client, "PATCH", f"{path}/theirs?fieldManager=test&force=true", ours)

    assert "may only write objects of AuroraDeployments" in refused.value.body


def test_it_may_not_delete_what_others_made(api_server, stolen):
    client, namespace = stolen
    path = f"/api/v1/namespaces/{namespace}/services"
    body = {"metadata": {"name": "theirs"}, "spec": {"ports": [{"port": 80}]}}
    api_server.request("POST", path, body)

    with pytest.raises(ApiException) as refused:
        request(client, "DELETE", f"{path}/theirs")

    assert "may only write objects of AuroraDeployments" in refused.value.body


def test_it_may_mend_an_object_whose_label_was_removed(api_server, stolen):
    client, namespace = stolen
    path = f"/api/v1/namespaces/{namespace}/secrets"
    body = secret(ownerReferences=OWNERS) | {
        "metadata": {"name": "bare", "ownerReferences": OWNERS}
    }
    api_server.request("POST", path, body)
    ours = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bare", **OURS}}

    mended = request(client, "PATCH", f"{path}/bare?fieldManager=test&force=true", ours)

    assert mended["metadata"]["labels"] == LABELS


def test_it_may_run_a_deployments_pods(stolen):
    client, namespace = stolen

    assert refusal(client, namespace, "deployments", workload()) == ""


@pytest.mark.parametrize(
    ("pod", "container", "says"),
    [
        ({"serviceAccountName": "admin"}, {}, "as their deployment's account"),
        ({"serviceAccountName": None}, {}, "as their deployment's account"),
        ({"automountServiceAccountToken": True}, {}, "without a token"),
        ({"automountServiceAccountToken": None}, {}, "without a token"),
        ({"hostNetwork": True}, {}, "reach their host"),
        ({"hostPID": True}, {}, "reach their host"),
        ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, {}, "reach their host"),
        (
            {
                "volumes": [
                    {
                        "name": "a",
                        "projected": {"sources": [{"serviceAccountToken": {"path": "a"}}]},
                    }
                ]
            },
            {},
            "reach their host",
        ),
        ({}, {"securityContext": {"capabilities": {"add": ["NET_RAW"]}}}, "reach their host"),
    ],
)
def test_it_may_run_no_other_pods(stolen, pod, container, says):
    client, namespace = stolen
    body = workload(pod, container)

    assert says in refusal(client, namespace, "deployments", body)
    assert says in refusal(client, "kube-system", "deployments", body)


def test_unrestricted_templates_may_choose_their_account(objects):
    policies = [
        body
        for body in objects({"tenancy": {"podTemplate": "Unrestricted"}})
        if body["kind"] == "ValidatingAdmissionPolicy"
    ]

    (policy,) = policies
    assert "serviceAccountName" not in yaml.safe_dump(policy["spec"]["validations"])
