"""The README's quick start on a cluster, command by command."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess

import pytest
from harness import place
from harness.cluster import Cluster
from harness.host_folder import claimed, python_folders, volume, writable_folder
from harness.machine_policy import machine_policy
from harness.program import Program

from aurora_demo.models import cache_root

_SECONDS = 600
_BLOCK = re.compile(r"^## On Kubernetes$.*?^```sh$(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The README's commands, except those for images, which are on the node already."""
    text = (place.REPOSITORY / "README.md").read_text()
    (block,) = _BLOCK.findall(text)
    lines = block.replace("\\\n", " ").strip().splitlines()
    return [line for line in lines if line and not line.startswith("make images")]


@pytest.fixture
def prepared(cluster: Cluster) -> None:
    """Volumes for claims, and Python for images without, which a user's cluster has."""
    folders = python_folders()
    models = writable_folder("quick-start-models")
    # Already trained; need not be trained again.
    if (made := cache_root() / "demo").is_dir():
        shutil.copytree(made, models / "demo")
        subprocess.run(["chown", "-R", "65532:65532", models], check=True)
    for claim, folder in folders.items():
        cluster.apply(*claimed("default", claim, folder))
    cluster.apply(
        volume("default", "models", models),
        volume("default", "redis-chat-buffer-0", writable_folder("quick-start-redis")),
        *machine_policy(folders, ["default"]),
    )
    cluster.await_that(lambda: is_policy_in_force(cluster), "pods get the machine's Python", 30)


def test_the_quick_start_works_as_written(cluster, prepared, request):
    environment = {**cluster.environment, "COLUMNS": "200"}
    outputs = []
    for command in commands():
        if command.rstrip().endswith("&"):
            shell = ["/usr/bin/bash", "-c", f"exec {command.rstrip(' &')}"]
            request.addfinalizer(Program("port-forward", shell, environment).stop)
            cluster.await_that(is_forwarded, command, 30)
        else:
            outputs.append(said(command, environment))
    (place.LOGS / "quick-start.txt").write_text("\n".join(outputs))

    assert "chat" in outputs[-1]


def said(command: str, environment: dict[str, str]) -> str:
    """Runs a command and returns its output; AssertionError if it fails."""
    result = subprocess.run(
        ["/usr/bin/bash", "-c", command],
        cwd=place.REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    text = f"$ {command}\n{result.stdout}"
    assert result.returncode == 0, text
    return text


def is_policy_in_force(cluster: Cluster) -> bool:
    """Whether the policy is in force, which takes the API server a moment."""
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    made = cluster.api.request("POST", "/api/v1/namespaces/default/pods?dryRun=All", pod)
    return any(each["name"] == "host-system" for each in made["spec"]["volumes"])


def is_forwarded() -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", 8000)) == 0
