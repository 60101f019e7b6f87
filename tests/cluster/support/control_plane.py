"""A real Kubernetes control plane for a test run, on loopback or for a node."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from support.audit import POLICY, AuditLog
from support.authority import ClusterAuthority
from support.tethered import end, tethered
from urllib3.exceptions import HTTPError

from aurora_common.port import free_port

ADMINISTRATORS = ("system:masters",)
LOOPBACK = "127.0.0.1"
# The Service `kubernetes` has the first address of the range.
SERVICE_ADDRESS = "10.96.0.1"
DEFINITION = Path(__file__).parents[3] / "deploy/crds/auroradeployments.yaml"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_START_SECONDS = 60.0
_POLL_SECONDS = 0.05
# The Pod Security level of a careful cluster.
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class ApiServer:
    """etcd and kube-apiserver; call `start` in a thread that outlives them.

    `address`: where it serves; pods cannot reach loopback. `kubeconfig`: an administrator's;
    `client`: for the tests' own requests.
    """

    def __init__(self, programs: Path, folder: Path, address: str = LOOPBACK) -> None:
        self._programs = programs
        self._folder = folder
        self._address = address
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._authority = ClusterAuthority(folder)
        self._signing_key = self._authority.signing_key()
        self.url = f"https://{address}:{free_port()}"
        self.authority = self._authority.certificate
        self.audit = AuditLog(folder / "audit.log")
        self.kubeconfig = self.kubeconfig_of("admin", *ADMINISTRATORS)
        self.client = client_of(self.kubeconfig)

    def kubeconfig_of(self, user: str, *groups: str) -> Path:
        """The kubeconfig of a user, for which no account is needed."""
        return self._authority.kubeconfig(self.url, user, groups)

    def serving_certificate(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a server that the cluster's clients trust."""
        return self._authority.serving(name, (LOOPBACK, self._address, SERVICE_ADDRESS))

    def start(self) -> None:
        """Returns once objects of every built-in kind can be created."""
        etcd = f"http://127.0.0.1:{free_port()}"
        self._run("etcd", *_etcd(self._folder, etcd))
        self._run("kube-apiserver", *self._flags(etcd))
        self.await_that(self._is_ready, "the API server is ready")

    def install_aurora_deployments(self) -> None:
        """Returns once AuroraDeployments can be created."""
        self.install(yaml.safe_load(DEFINITION.read_text()))

    def start_controllers(self) -> None:
        """Starts controller manager and scheduler; returns once namespaces can be used."""
        manager = self.kubeconfig_of("system:kube-controller-manager")
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={manager}",
            f"--service-account-private-key-file={self._signing_key}",
            f"--root-ca-file={self.authority}",
            *("--use-service-account-credentials", "--kube-api-qps=200", "--kube-api-burst=400"),
            *("--leader-elect=false", "--secure-port=0"),
        )
        scheduler = self.kubeconfig_of("system:kube-scheduler")
        self._run(
            "kube-scheduler",
            *(f"--kubeconfig={scheduler}", "--leader-elect=false", "--secure-port=0"),
        )
        self.await_account("default")

    def stop(self) -> None:
        """Stops every process, in the reverse order of their start."""
        for process in reversed(self._processes.values()):
            end(process)
        self.client.close()

    def create_namespace(self, prefix: str = "test") -> str:
        """Creates a namespace with Pod Security `restricted` and returns its name."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        metadata = {"name": name, "labels": _RESTRICTED}
        self.request("POST", "/api/v1/namespaces", {"metadata": metadata})
        return name

    def await_account(self, namespace: str) -> None:
        """Waits for a namespace's default ServiceAccount, without which no pod can be created."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"

        def is_there() -> bool:
            try:
                return bool(self.request("GET", path)["metadata"].get("uid"))
            except ApiException as error:
                if error.status != 404:
                    raise
                return False

        self.await_that(is_there, f"{namespace} has its ServiceAccount")

    def install(self, definition: dict[str, Any]) -> None:
        """Installs a CustomResourceDefinition; returns once its objects are served."""
        name = definition["metadata"]["name"]
        self.request("PATCH", f"{_DEFINITIONS}/{name}?fieldManager=test&force=true", definition)
        spec = definition["spec"]
        version = spec["versions"][0]["name"]
        objects = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"

        def is_served() -> bool:
            try:
                self.request("GET", objects)
            except ApiException as error:
                # 429: its storage is being initialised.
                if error.status not in (404, 429):
                    raise
                return False
            return True

        self.await_that(is_served, f"{name} is served")

    def uninstall(self, definition: dict[str, Any]) -> None:
        """Removes a CustomResourceDefinition, and its objects with it."""
        self.request("DELETE", f"{_DEFINITIONS}/{definition['metadata']['name']}")

    def request(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request as administrator; a PATCH applies. ApiException if it is refused."""
        return request(self.client, verb, path, body)

    def await_that(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition; fails early, with its log, if a process has exited."""
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} ended:\n{self._log_end(name)}"
            last = next(reversed(self._processes))
            assert time.monotonic() < deadline, f"not in time: {what}\n{self._log_end(last)}"
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        try:
            self.request("GET", "/readyz")
        except (ApiException, HTTPError):
            return False
        return True

    def _run(self, name: str, *flags: str) -> None:
        log = self._folder / f"{name}.log"
        self._processes[name] = tethered([self._programs / name, *flags], log=log)

    def _log_end(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def _flags(self, etcd: str) -> tuple[str, ...]:
        certificate, key = self.serving_certificate("kube-apiserver")
        policy = self._folder / "audit-policy.json"
        policy.write_text(json.dumps(POLICY))
        return (
            f"--etcd-servers={etcd}",
            *(f"--bind-address={self._address}", f"--advertise-address={self._address}"),
            f"--secure-port={self.url.rpartition(':')[2]}",
            *self._flags_of_place(),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
            *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
            *(f"--client-ca-file={self.authority}", "--authorization-mode=Node,RBAC"),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._signing_key}",
            f"--service-account-signing-key-file={self._signing_key}",
            *(f"--audit-policy-file={policy}", f"--audit-log-path={self._folder / 'audit.log'}"),
            f"--cert-dir={self._folder}",
        )

    def _flags_of_place(self) -> tuple[str, ...]:
        if self._address == LOOPBACK:
            # A loopback address cannot be an endpoint of the Service `kubernetes`.
            return ("--endpoint-reconciler-type=none",)
        certificate, key = self._authority.user("kube-apiserver-kubelet-client", ADMINISTRATORS)
        return (
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={certificate}",
            f"--kubelet-client-key={key}",
        )


def client_of(kubeconfig: Path) -> ApiClient:
    """A client of the cluster and user that a kubeconfig names."""
    configuration = Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    return ApiClient(configuration)


def request(client: ApiClient, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """One request in JSON; a PATCH is a server-side apply. Other responses are returned as text."""
    content_type = "application/apply-patch+yaml" if verb == "PATCH" else "application/json"
    response = client.rest_client.pool_manager.request(
        verb,
        f"{client.configuration.host}{path}",
        body=None if body is None else json.dumps(body),
        headers={"Accept": "application/json", "Content-Type": content_type},
        timeout=30.0,
        retries=False,
    )
    if response.status >= 300:
        refused = ApiException(status=response.status, reason=response.reason)
        refused.body = response.data.decode(errors="replace")
        raise refused
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    return json.loads(response.data) if is_json else response.data.decode()


def _etcd(folder: Path, url: str) -> tuple[str, ...]:
    peers = f"http://127.0.0.1:{free_port()}"
    return (
        *(f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"),
        *(f"--listen-client-urls={url}", f"--advertise-client-urls={url}"),
        *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
        f"--initial-cluster=default={peers}",
    )
