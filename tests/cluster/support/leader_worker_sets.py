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
_SETS = {
    "apiGroups": [VERSION.split("/")[0]],
    "resources": ["leaderworkersets"],
    "operations": ["CREATE", "UPDATE"],
}
_PODS = {"apiGroups": [""], "resources": ["pods"], "operations": ["CREATE"]}
_OF_A_SET = {
    "matchExpressions": [{"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"}]
}
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
        for kind, verb in (("mutating", "mutate"), ("validating", "validate")):
            hooks = [
                self._hook(f"{verb}-leaderworkerset-x-k8s-io-v1-leaderworkerset", _SETS),
                self._hook(f"{verb}--v1-pod", _PODS) | {"objectSelector": _OF_A_SET},
            ]
            body = {"metadata": {"name": _NAME}, "webhooks": hooks}
            server.request("POST", f"{_HOOKS}/{kind}webhookconfigurations", body)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-6000:]

    def close(self) -> None:
        for kind in ("mutating", "validating"):
            self._server.request("DELETE", f"{_HOOKS}/{kind}webhookconfigurations/{_NAME}")
        end(self._process)
        self._server.uninstall(self._definition)

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"lws ended:\n{self.log()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _hook(self, path: str, rule: dict[str, Any]) -> dict[str, Any]:
        authority = Path(self._server.authority).read_bytes()
        return {
            "name": f"{path}.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {
                "url": f"https://127.0.0.1:{self._port}/{path}",
                "caBundle": base64.b64encode(authority).decode(),
            },
            "rules": [{"apiVersions": ["v1"], **rule}],
        }
