"""The operator as a process, with the rights from the chart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from support.authority import write_kubeconfig
from support.control_plane import ApiServer
from support.tethered import end, tethered

from aurora_common.port import free_port

CHART = Path(__file__).parents[3] / "deploy/helm/aurora"
ACCOUNT = "aurora-operator"
_IMAGES = ("inference", "buffer", "trainer")
_READY_SECONDS = 30.0
_POLL_SECONDS = 0.02
_TOKEN_SECONDS = 24 * 3600


def install_rights(
    server: ApiServer,
    helm: Path,
    namespace: str,
    *,
    release: str = ACCOUNT,
    watched: Sequence[str] = (),
) -> str:
    """Creates the operator's account with the chart's rules in `namespace`; its user name.

    `watched`: the namespaces that it may manage; empty: all.
    """
    values = json.dumps({"watchNamespaces": list(watched) or ["*"]})
    result = subprocess.run(
        [
            *(helm, "template", release, CHART, "--namespace", namespace, "--kube-version", "1.36"),
            *("--values", "-"),
            *("--show-only", "templates/rbac.yaml"),
            *("--show-only", "templates/serviceaccount.yaml"),
            *("--show-only", "templates/operatorpolicy.yaml"),
        ],
        input=values,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    account = ""
    for body in yaml.safe_load_all(result.stdout):
        server.request("PATCH", f"{_path(body)}?fieldManager=test&force=true", body)
        if body["kind"] == "ServiceAccount":
            account = body["metadata"]["name"]
    return f"system:serviceaccount:{namespace}:{account}"


def _path(body: dict[str, Any]) -> str:
    metadata, kind = body["metadata"], body["kind"]
    root = f"/apis/{body['apiVersion']}" if "/" in body["apiVersion"] else "/api/v1"
    place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    plural = f"{kind.lower().removesuffix('y')}{'ies' if kind.endswith('y') else 's'}"
    return f"{root}{place}/{plural}/{metadata['name']}"


class OperatorProcess:
    """`url`: the API server's, or that of a proxy. `user`: its name in the audit log.

    `environment` is added to the process's.
    """

    def __init__(
        self,
        server: ApiServer,
        user: str,
        folder: Path,
        *,
        url: str = "",
        lease_name: str = "aurora-operator",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.user = user
        self._environment = {"PYTHONSAFEPATH": "1", **(environment or {})}
        self._lease_name = lease_name
        self.lease_namespace, account = user.split(":")[2:]
        self._log = folder / "operator.log"
        self._process: subprocess.Popen[bytes] | None = None
        path = f"/api/v1/namespaces/{self.lease_namespace}/serviceaccounts/{account}/token"
        asked = {"spec": {"expirationSeconds": _TOKEN_SECONDS}}
        token = server.request("POST", path, asked)["status"]["token"]
        self._kubeconfig = write_kubeconfig(
            folder / "operator.kubeconfig", url or server.url, server.authority, {"token": token}
        )
        self._health, self._metrics = free_port(), free_port()
        self._identity = f"operator_{uuid.uuid4()}"
        # Of the next start, beside the usual ones.
        self.arguments: Sequence[str | Path] = ()

    @property
    def pid(self) -> int | None:
        """The running process's pid, or None."""
        return None if self._process is None else self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, namespaces: Sequence[str] = (), wait: bool = True) -> None:
        """Starts it, and waits until it leads and its caches are primed."""
        assert self._process is None, "already running"
        command: list[str | Path] = [
            *(sys.executable, "-m", "aurora_operator", "cluster"),
            *("--kubeconfig", self._kubeconfig, "--lease-namespace", self.lease_namespace),
            *("--lease-name", self._lease_name, "--identity", self._identity),
            *("--health-listen", f"127.0.0.1:{self._health}"),
            *("--metrics-listen", f"127.0.0.1:{self._metrics}"),
        ]
        command += [text for each in _IMAGES for text in (f"--{each}-image", f"aurora-{each}:test")]
        command += [text for namespace in namespaces for text in ("--namespace", namespace)]
        command += self.arguments
        self._process = tethered(command, log=self._log, environment=self._environment)
        if wait:
            self.await_ready()

    def await_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self.is_ready():
            assert self.runs, f"the operator ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the operator is not ready:\n{self.log()}"
            time.sleep(_POLL_SECONDS)

    def is_ready(self) -> bool:
        """Whether it leads and its caches are primed."""
        with suppress(urllib.error.URLError, OSError):
            url = f"http://127.0.0.1:{self._health}/readyz"
            with urllib.request.urlopen(url, timeout=2):
                return "aurora_operator_leader 1.0" in self.metrics()
        return False

    def unready(self) -> str:
        """Why it says that it is not ready; empty if it does not."""
        try:
            url = f"http://127.0.0.1:{self._health}/readyz"
            with urllib.request.urlopen(url, timeout=2):
                return ""
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def answers(self) -> bool:
        """Whether it runs, even if another one leads."""
        with suppress(urllib.error.URLError, OSError):
            return bool(self.metrics())
        return False

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self._metrics}/metrics"
        with urllib.request.urlopen(url, timeout=2) as answer:
            return str(answer.read().decode())

    def kill(self) -> None:
        """Kills it; may be called from any thread, and repeatedly."""
        if (process := self._process) is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def restart(self, *, wait: bool = True) -> None:
        """Stops and starts it, as a kubelet restarts a container."""
        self.stop()
        self.start(wait=wait)

    def stop(self) -> None:
        """Terminates it, if it runs, and waits for its exit."""
        if self._process is not None:
            end(self._process, seconds=15.0)
            self._process = None

    def restart_if_lease_lost(self) -> None:
        """Restarts it, as a kubelet would, if it exited since it could not renew its lease in time.

        On a machine that is loaded enough, it cannot: that is no fault of the operator.
        """
        if self._process is not None and not self.runs:
            *_, last = self.log().splitlines() or [""]
            if "lease lost; exiting" in last:
                self.restart(wait=False)

    def log(self, *, characters: int = 6000) -> str:
        """The end of the log of all its runs."""
        return self._log.read_text(errors="replace")[-characters:] if self._log.exists() else ""

    def errors(self) -> list[dict[str, Any]]:
        """Its log records of level error or above."""
        if not self._log.exists():
            return []
        found = []
        for line in self._log.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                record = json.loads(line)
                if record.get("level") in ("error", "critical"):
                    found.append(record)
        return found
