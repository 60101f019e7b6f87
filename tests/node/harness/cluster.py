"""A cluster of one node, and a person's command lines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import installation, place, registry
from harness.container_runtime import import_image, start_container_runtime
from harness.image import write_image
from harness.node import start_node
from harness.program import Program
from support.control_plane import ApiServer

_READY_SECONDS = 60.0
_COMMAND_SECONDS = 60.0
_POLL_SECONDS = 0.2


class Cluster:
    """Control plane and node, in the namespaces that `run.py` created.

    `environment`: for programs that find the cluster by KUBECONFIG.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._node: list[Program] = []
        folder = place.FOLDER / "control-plane"
        folder.mkdir()
        self.api = ApiServer(programs, folder, place.ADDRESS)
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(self.api.kubeconfig),
            "HOME": str(place.FOLDER),
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def start(self) -> None:
        """Returns once the node is ready for pods."""
        shutil.rmtree(place.LOGS, ignore_errors=True)
        place.LOGS.mkdir(parents=True)
        self._node += [self._start_registry(), start_container_runtime()]
        self._import_images()
        self.api.start()
        self.api.start_controllers()
        self._node += start_node(self._programs, self.api)
        self.await_that(self._is_ready, "the node is ready", _READY_SECONDS)

    def stop(self) -> None:
        """Stops the programs; containers end with the namespaces. Logs are kept."""
        for name, what in (("events", "events"), ("objects", "all,auroradeployments,pvc")):
            asked = ("get", what, "--all-namespaces", "-o", "yaml")
            result = self._run("kubectl", *asked, given=None, seconds=_COMMAND_SECONDS)
            (place.LOGS / f"{name}.yaml").write_text(result.stdout + result.stderr)
        for program in reversed(self._node):
            program.stop()
        self.api.stop()

    def kubectl(self, *arguments: str | Path, given: str | None = None) -> str:
        """kubectl's output; AssertionError if it fails."""
        return self._call("kubectl", *arguments, given=given)

    def helm(self, *arguments: str | Path, seconds: float = 2 * _COMMAND_SECONDS) -> str:
        """Helm's output; AssertionError if it fails."""
        return self._call("helm", *arguments, seconds=seconds)

    def apply(self, *objects: dict[str, Any]) -> None:
        """`kubectl apply` of objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "-f", "-", given=json.dumps(items))

    def get(self, *arguments: str) -> Any:
        """An object or a list of them, from `kubectl get`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def await_that(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Waits for a condition; AssertionError if a program exits or time is up."""
        deadline = time.monotonic() + seconds
        while not condition():
            for program in self._node:
                program.check()
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(_POLL_SECONDS)

    def _call(
        self,
        program: str,
        *arguments: str | Path,
        given: str | None = None,
        seconds: float = _COMMAND_SECONDS,
    ) -> str:
        result = self._run(program, *arguments, given=given, seconds=seconds)
        said = result.stdout + result.stderr
        assert result.returncode == 0, f"{program} {' '.join(map(str, arguments))}:\n{said}"
        return result.stdout

    def _run(
        self, program: str, *arguments: str | Path, given: str | None, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._programs / program, *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def _start_registry(self) -> Program:
        folder = place.FOLDER / "registry"
        folder.mkdir()
        images = Path(os.environ[place.REGISTRY_VARIABLE])
        program = Program("registry", registry.command(images, place.REGISTRY, folder))
        program.await_that(
            lambda: registry.answers(place.REGISTRY), "the registry answers", _READY_SECONDS
        )
        return program

    def _import_images(self) -> None:
        archive = place.FOLDER / "images.tar"
        write_image(
            archive, [place.PAUSE_IMAGE, *installation.images()], environment=host_environment()
        )
        import_image(archive)

    def _is_ready(self) -> bool:
        conditions = [
            condition
            for node in self.get("nodes")["items"]
            for condition in node["status"].get("conditions", ())
        ]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def host_environment() -> list[str]:
    """The environment by which a container finds this machine's Python."""
    return [
        f"PATH={Path(sys.prefix) / 'bin'}:/usr/bin",
        "PYTHONSAFEPATH=1",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
