"""A real LeaderWorkerSet: its kind, its controllers and its webhooks."""

from __future__ import annotations

import base64
import socket
import subprocess
from pathlib import Path
from typing import Any

import yaml
from support.control_plane import ADMINISTRATORS, ApiServer
from support.deployments import wait_until
from support.tethered import end, tethered

from aurora_common.port import free_port

VERSION = "leaderworkerset.x-k8s.io/v1"
_HOOKS = "/apis/admissionregistration.k8s.io/v1"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SETS = {"apiGroups": [VERSION.split("/")[0]], "resources": ["leaderworkersets"]}
_PODS = {"apiGroups": [""], "resources": ["pods"]}
_NAME = "leader-worker-sets"


class LeaderWorkerSets:
    """Closing removes its kind and webhooks from the API server: other tests do without them."""

    def __init__(self, server: ApiServer, programs: Path, folder: Path) -> None:
        self._server = server
        self._log = folder / "lws.log"
        (definition,) = (programs / "lws-crds").glob("*leaderworkersets.yaml")
        self._definition = yaml.safe_load(definition.read_text())
        server.install(self._definition)
        certificate, key = server.serving_certificate(_NAME)
        for name, path in (("tls.crt", certificate), ("tls.key", key)):
            (folder / name).write_bytes(path.read_bytes())
        self._port = free_port()
        self._process: subprocess.Popen[bytes] = tethered(
            [programs / "lws", f"-certificates={folder}", f"-port={self._port}"],
            log=self._log,
            environment={"KUBECONFIG": str(server.kubeconfig_of(_NAME, *ADMINISTRATORS))},
        )
        wait_until(self._answers, why=self.log)
        authority = base64.b64encode(Path(server.authority).read_bytes()).decode()
        for kind, verb in (("Mutating", "mutate"), ("Validating", "validate")):
            hooks = [
                self._hook(f"sets.{verb}", f"{verb}-leaderworkerset-x-k8s-io-v1-leaderworkerset"),
                self._hook(f"pods.{verb}", f"{verb}--v1-pod"),
            ]
            for hook in hooks:
                hook["clientConfig"]["caBundle"] = authority
            body = {"metadata": {"name": _NAME}, "webhooks": hooks}
            server.request("POST", f"{_HOOKS}/{kind.lower()}webhookconfigurations", body)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-6000:]

    def close(self) -> None:
        for kind in ("mutating", "validating"):
            self._server.request("DELETE", f"{_HOOKS}/{kind}webhookconfigurations/{_NAME}")
        end(self._process)
        self._server.request("DELETE", f"{_DEFINITIONS}/{self._definition['metadata']['name']}")

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"lws ended:\n{self.log()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _hook(self, name: str, path: str) -> dict[str, Any]:
        rules = _PODS if name.startswith("pods") else _SETS
        hook: dict[str, Any] = {
            "name": f"{name}.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": f"https://127.0.0.1:{self._port}/{path}"},
            "rules": [{**rules, "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}],
        }
        if rules is _PODS:
            hook["rules"][0]["operations"] = ["CREATE"]
            named = {"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}
            hook["objectSelector"] = {"matchExpressions": [named]}
        return hook
