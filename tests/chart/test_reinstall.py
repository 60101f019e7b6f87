"""After an uninstall, which keeps the resource definition, the chart is installed elsewhere."""

import subprocess

import pytest

DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/auroradeployments.aurora.dev"


@pytest.fixture
def call(helm, chart, api_server):
    """Runs Helm against the API server."""

    def call(*command):
        return subprocess.run(
            [helm, f"--kubeconfig={api_server.kubeconfig}", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return call


@pytest.fixture
def install(call, chart):
    """Installs the chart without operator pods; uninstalls afterwards what is left."""
    made = []

    def install(release, namespace, *flags):
        names = [f"--set=fullnameOverride={release}", "--set=replicaCount=0"]
        result = call("install", release, chart, f"--namespace={namespace}", *names, *flags)
        made.append((release, namespace))
        return result

    yield install
    for release, namespace in made:
        call("uninstall", release, f"--namespace={namespace}", "--ignore-not-found")


def test_another_release_takes_over_the_kept_definition(api_server, call, install):
    one, two = api_server.create_namespace(), api_server.create_namespace()
    # The tests' own definition belongs to no release.
    assert install("reinstall-one", one, "--take-ownership").returncode == 0
    uid = api_server.request("GET", DEFINITION)["metadata"]["uid"]
    assert call("uninstall", "reinstall-one", f"--namespace={one}").returncode == 0

    refused = install("reinstall-two", two)
    assert refused.returncode != 0
    assert "auroradeployments.aurora.dev" in refused.stderr
    call("uninstall", "reinstall-two", f"--namespace={two}", "--ignore-not-found")
    installed = install("reinstall-two", two, "--take-ownership")

    assert installed.returncode == 0, installed.stderr
    metadata = api_server.request("GET", DEFINITION)["metadata"]
    assert metadata["uid"] == uid
    assert metadata["annotations"]["meta.helm.sh/release-namespace"] == two
