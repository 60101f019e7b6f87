"""Images of the Dockerfile that users get, in restricted pods that pull from a private registry."""

import json

import pytest
from harness import place
from harness.image import USER
from harness.image_build import COMPONENTS
from harness.installation import FROM_REGISTRY, PULL_SECRET, digest, pull_secret
from harness.pod import restricted
from packaging.utils import canonicalize_name

# With what a container could be explored or changed.
_TOOLS = ["sh", "bash", "dash", "perl", "apt-get", "dpkg", "pip", "gcc", "cc", "su", "mount"]
# Arguments: a module of the component; programs to look for.
_EXPLORE = """
import importlib, importlib.metadata, json, os, pathlib, shutil, sys

module = importlib.import_module(sys.argv[1])
try:
    pathlib.Path("/opt/aurora/a").write_text("")
    written = True
except OSError:
    written = False
found = {
    "packages": {each.name: each.version for each in importlib.metadata.distributions()},
    "tools": [each for each in sys.argv[2:] if shutil.which(each)],
    "user": os.getuid(),
    "written": written,
    "compiled": pathlib.Path(module.__cached__).exists(),
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def namespace(cluster):
    namespace = cluster.api.create_namespace()
    cluster.api.await_account(namespace)
    cluster.apply(pull_secret(namespace))
    return namespace


@pytest.fixture(scope="module", params=COMPONENTS)
def explored(cluster, namespace, request):
    """The component, its pod once that has ended, and what it found."""
    component = request.param
    container = {
        "name": component,
        "image": f"{FROM_REGISTRY}/aurora-{component}@{digest(component)}",
        "command": ["python", "-c", _EXPLORE, f"aurora_{component}.__main__", *_TOOLS],
    }
    pod = restricted(namespace, component, container)
    cluster.apply({**pod, "spec": {**pod["spec"], "imagePullSecrets": [{"name": PULL_SECRET}]}})
    wait = ("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{component}")
    cluster.kubectl("-n", namespace, *wait, "--timeout=50s")
    return component, json.loads(cluster.kubectl("-n", namespace, "logs", component))


def test_an_image_holds_what_its_list_says(explored):
    component, found = explored

    path = place.REPOSITORY / f"out/sbom/{component}/sbom.cdx.json"
    content = json.loads(path.read_text())
    listed = [content["metadata"]["component"], *content["components"]]
    assert {canonicalize_name(each["name"]): each["version"] for each in listed} == {
        canonicalize_name(name): version for name, version in found["packages"].items()
    }
    assert all(each["purl"].startswith("pkg:pypi/") for each in content["components"])


def test_an_image_runs_as_nobody_without_tools_or_writing(explored):
    _, found = explored

    assert found["user"] == USER
    assert found["tools"] == []
    assert found["written"] is False
    # Or every start would compile every module again.
    assert found["compiled"] is True
