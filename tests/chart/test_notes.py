"""What Helm tells after an installation, and for which clusters it refuses one."""

import subprocess

import pytest
import yaml


@pytest.fixture
def notes(helm, api_server, api_namespace, chart, tmp_path):
    """The notes of an installation that a real API server would have taken."""

    def notes(values):
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        command = [
            *(helm, "install", "aurora", chart, "--dry-run=server", "--values", path),
            *("--namespace", api_namespace, "--kubeconfig", api_server.kubeconfig),
        ]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stderr
        return told.stdout.split("NOTES:\n")[1]

    return notes


def test_says_what_comes_next(notes, api_namespace):
    # The test's API server has the definition already, of another hand.
    told = notes({"crds": {"enabled": False}, "watchNamespaces": ["serving", "research"]})

    assert "in serving, research." in told
    assert f"kubectl --namespace {api_namespace} rollout status deployment/aurora-operator" in told
    assert "kubectl apply -f examples/kubernetes-quickstart.yaml" in told


def test_says_what_is_missing(notes):
    told = notes({"crds": {"enabled": False}})

    assert "in every namespace." in told
    assert "crds.enabled: false" in told
    assert "No monitors were created" in told


def test_an_older_cluster_is_refused(helm, chart):
    command = [helm, "template", "aurora", chart, "--kube-version", "1.29.9"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)

    assert told.returncode != 0
    assert "requires kubeVersion: >=1.30.0-0" in told.stderr
