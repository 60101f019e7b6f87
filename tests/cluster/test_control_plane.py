import subprocess

import pytest
from kubernetes.client.exceptions import ApiException


def deployments(namespace):
    return f"/apis/aurora.dev/v1alpha1/namespaces/{namespace}/auroradeployments"


def test_serves_aurora_deployments(api_server, api_namespace):
    assert api_server.request("GET", deployments(api_namespace))["items"] == []


def test_reports_the_pinned_version(api_server, kubectl):
    result = subprocess.run(
        [kubectl, "--kubeconfig", api_server.kubeconfig, "version"], capture_output=True, text=True
    )

    assert "Server Version: v1.36.2" in result.stdout


def test_holds_pods_to_the_restricted_standard(control_plane, namespace):
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}

    with pytest.raises(ApiException) as refused:
        control_plane.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)

    assert refused.value.status == 403
    assert "runAsNonRoot" in refused.value.body


def test_audits_writes(control_plane, namespace):
    mark = control_plane.audit.mark()
    control_plane.request(
        "POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "settings"}}
    )

    (written,) = control_plane.audit.writes(mark, user="admin", namespace=namespace)

    assert (written.verb, written.resource, written.name) == ("create", "configmaps", "settings")
