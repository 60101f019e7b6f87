"""A real cert-manager, without its webhook, and its issuers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml
from support.control_plane import ADMINISTRATORS, ApiServer
from support.deployments import wait_until
from support.tethered import end, tethered

VERSION = "cert-manager.io/v1"
_ROOT = f"/apis/{VERSION}"


class CertManager:
    """Made and closed in a thread that outlives it.

    Closing removes its kinds from the API server: other tests do without them.
    """

    def __init__(self, server: ApiServer, programs: Path, folder: Path) -> None:
        self._server = server
        self._log = folder / "cert-manager.log"
        self._namespace = server.create_namespace("cert-manager")
        found = sorted((programs / "cert-manager-crds").glob("cert-manager.io_*.yaml"))
        self._definitions = [yaml.safe_load(path.read_text()) for path in found]
        for definition in self._definitions:
            server.install(definition)
        kubeconfig = server.kubeconfig_of("cert-manager", *ADMINISTRATORS)
        command = [
            *(programs / "cert-manager", f"-kubeconfig={kubeconfig}"),
            f"-cluster-resource-namespace={self._namespace}",
        ]
        self._process: subprocess.Popen[bytes] = tethered(command, log=self._log)
        self._issuer("self-signed", {"selfSigned": {}})

    def authority(self, name: str) -> dict[str, str]:
        """Creates a ClusterIssuer with its own key and returns an `issuerRef` to it."""
        self._apply(
            f"namespaces/{self._namespace}/certificates",
            {
                "kind": "Certificate",
                "metadata": {"name": name},
                "spec": {
                    "isCA": True,
                    "commonName": name,
                    "secretName": name,
                    "privateKey": {"algorithm": "ECDSA", "size": 256},
                    "issuerRef": {"kind": "ClusterIssuer", "name": "self-signed"},
                },
            },
        )
        self._issuer(name, {"ca": {"secretName": name}})
        return {"kind": "ClusterIssuer", "name": name}

    def log(self, *, characters: int = 6000) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-characters:]

    def close(self) -> None:
        end(self._process)
        for definition in self._definitions:
            self._server.uninstall(definition)

    def _issuer(self, name: str, spec: dict[str, Any]) -> None:
        body = {"kind": "ClusterIssuer", "metadata": {"name": name}, "spec": spec}
        self._apply("clusterissuers", body)
        path = f"{_ROOT}/clusterissuers/{name}"

        def is_ready() -> bool:
            assert self._process.poll() is None, f"cert-manager ended:\n{self.log()}"
            status = self._server.request("GET", path).get("status", {})
            return any(
                each["type"] == "Ready" and each["status"] == "True"
                for each in status.get("conditions", ())
            )

        wait_until(is_ready, why=self.log)

    def _apply(self, place: str, body: dict[str, Any]) -> None:
        path = f"{_ROOT}/{place}/{body['metadata']['name']}?fieldManager=test&force=true"
        self._server.request("PATCH", path, {"apiVersion": VERSION, **body})
