"""`kubectl aurora` as one file, run by a Python that has nothing of Aurora's, and so no torch."""

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from support.manifest import MINIMAL

ROOT = Path(__file__).parents[2]
URL = "https://releases.example.com/v0"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kubectl")
    command = [sys.executable, ROOT / "tools/kubectl_file.py", "--into", folder, "--url", URL]
    subprocess.run(command, check=True, timeout=240, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder of programs with a Python that has no packages."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    return folder / "bin"


@pytest.fixture
def aurora(made, bare, kubectl, api_server, api_namespace, tmp_path_factory):
    """`kubectl aurora …` as kubectl itself finds it on the PATH."""
    environment = {
        "PATH": f"{made}:{bare}:/usr/bin:/bin",
        "HOME": str(tmp_path_factory.getbasetemp()),
        "KUBECONFIG": str(api_server.kubeconfig),
    }

    def aurora(*arguments):
        return subprocess.run(
            [kubectl, "aurora", *arguments, "-n", api_namespace],
            env=environment,
            text=True,
            capture_output=True,
            timeout=120,
        )

    return aurora


@pytest.mark.slow
def test_it_steers_a_deployment_without_anything_installed(aurora, bare, api_server, api_namespace):
    missing = "import importlib.util as u; print([u.find_spec(n) for n in ('torch', 'grpc')])"
    asked = subprocess.run([bare / "python3", "-c", missing], capture_output=True, text=True)
    assert asked.stdout == "[None, None]\n"
    objects = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    api_server.request("POST", objects, MINIMAL)

    told = aurora("get", "chat", "-o", "json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["metadata"]["name"] == "chat"
    told = aurora("suspend", "chat")
    assert (told.returncode, told.stdout) == (0, "chat suspended\n"), told.stderr
    assert api_server.request("GET", f"{objects}/chat")["spec"]["suspend"] is True


@pytest.mark.slow
def test_krew_finds_what_it_installs(made):
    manifest = yaml.safe_load((made / "aurora.yaml").read_text())
    (platform,) = manifest["spec"]["platforms"]
    archive = made / platform["uri"].removeprefix(f"{URL}/")
    assert platform["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert set(platform["selector"]["matchLabels"]) == {"os", "arch"}
    with tarfile.open(archive) as packed:
        assert set(packed.getnames()) == {platform["bin"], "LICENSE"}
        assert packed.getmember(platform["bin"]).mode == 0o755
        assert packed.extractfile(platform["bin"]).read() == (made / platform["bin"]).read_bytes()
