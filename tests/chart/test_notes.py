"""The notes after an installation, and the clusters that Helm refuses."""

import subprocess

import pytest
import yaml


@pytest.fixture
def notes(helm, api_server, api_namespace, chart, tmp_path):
    """The notes of a server-side dry run against a real API server."""

    def notes(values):
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        command = [
            *(helm, "install", "aurora", chart, "--dry-run=server", "--values", path),
            *("--namespace", api_namespace, "--kubeconfig", api_server.kubeconfig),
        ]
        text = subprocess.run(command, capture_output=True, text=True, check=False)
        assert text.returncode == 0, text.stderr
        return text.stdout.split("NOTES:\n")[1]

    return notes


def test_says_what_comes_next(notes, api_namespace):
    # The test's API server already has the CRD, installed by another field manager.
    text = notes({"crds": {"enabled": False}, "watchNamespaces": ["serving", "research"]})

    assert "in serving, research." in text
    assert f"kubectl --namespace {api_namespace} rollout status deployment/aurora-operator" in text
    assert "kubectl apply -f examples/kubernetes-quickstart.yaml" in text


def test_says_what_is_missing(notes, api_namespace):
    text = notes({"crds": {"enabled": False}})

    assert f"in {api_namespace}.\n" in text
    assert 'for all, set it to ["*"]' in text
    assert "crds.enabled: false" in text
    assert "No monitors were created" in text


def test_an_older_cluster_is_refused(helm, chart):
    command = [helm, "template", "aurora", chart, "--kube-version", "1.29.9"]
    text = subprocess.run(command, capture_output=True, text=True, check=False)

    assert text.returncode != 0
    assert "requires kubeVersion: >=1.30.0-0" in text.stderr
