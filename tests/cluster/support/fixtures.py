"""Fixtures of a real Kubernetes control plane, for every test that asks for one.

One control plane serves a whole run, or each worker of a parallel one. Its programs are obtained
before the first test, whose time limit they would exceed, and only if a selected test needs them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cert_manager import CertManager
from support.control_plane import ADMINISTRATORS, ApiServer
from support.deployments import Deployments
from support.kubelet import Kubelet
from support.leader_worker_sets import LeaderWorkerSets
from support.operator_process import OperatorProcess, install_rights
from support.proxy import FaultyProxy

OBTAIN = Path(__file__).parents[3] / "tools/kubernetes/obtain.py"
_SERVERS = ("etcd", "kube-apiserver")
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
# The programs that a test needs, by the fixtures that it requests.
_NEEDED = {
    "kubernetes_programs": (),
    "api_server": _SERVERS,
    "control_plane": (*_SERVERS, *_CONTROLLERS),
    "helm": ("helm",),
    "kubectl": ("kubectl",),
    "operator_user": ("helm",),
    "cert_manager": ("cert-manager",),
    "promtool": ("promtool",),
    "gitops_tools": ("gitops",),
    "leader_worker_sets": ("lws",),
}
# Roughly what a test with that marker, or with controllers, takes.
_SLOW_SECONDS = 20
_CONTROLLERS_SECONDS = 8
_FOLDER = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _needed(item):
            item.add_marker(pytest.mark.cluster)
    # A worker takes whole files. Running controllers delete objects with a made-up owner and change
    # others: files with them go last. Otherwise the longest go first, so that none begins late and
    # has the other workers wait.
    late = {item.path for item in items if _runs_controllers(item)}
    seconds = Counter[Path]()
    for item in items:
        seconds[item.path] += _SLOW_SECONDS * (item.get_closest_marker("slow") is not None)
        seconds[item.path] += _CONTROLLERS_SECONDS * _runs_controllers(item)
    items.sort(key=lambda item: (item.path in late, -seconds[item.path], _runs_controllers(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    needed = sorted({name for item in session.items for name in _needed(item)})
    if not needed or session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        result = subprocess.run(
            [sys.executable, str(OBTAIN), *needed], stdout=subprocess.PIPE, text=True, check=False
        )
    if result.returncode:
        raise pytest.UsageError("the cluster tests need programs that cannot be had: see above")
    session.config.stash[_FOLDER] = Path(result.stdout.strip())


def _runs_controllers(item: pytest.Item) -> bool:
    return "control_plane" in getattr(item, "fixturenames", ())


def _needed(item: pytest.Item) -> set[str]:
    asked = getattr(item, "fixturenames", ())
    return {name for fixture in asked for name in _NEEDED.get(fixture, ())}


@pytest.fixture(scope="session")
def kubernetes_programs(request: pytest.FixtureRequest) -> Path:
    """The folder of the pinned programs that the selected tests need."""
    return request.config.stash[_FOLDER]


@pytest.fixture(scope="session")
def helm(kubernetes_programs: Path) -> Path:
    return kubernetes_programs / "helm"


@pytest.fixture(scope="session")
def kubectl(kubernetes_programs: Path) -> Path:
    return kubernetes_programs / "kubectl"


@pytest.fixture(scope="session")
def promtool(kubernetes_programs: Path) -> Path:
    return kubernetes_programs / "promtool"


@pytest.fixture(scope="session")
def gitops_tools(kubernetes_programs: Path) -> Path:
    """Judges an object as Argo CD, Flux and kstatus do."""
    return kubernetes_programs / "gitops"


@pytest.fixture(scope="session")
def api_server(
    kubernetes_programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    """etcd and API server: enough for admission and dry runs, not for pods."""
    folder = tmp_path_factory.mktemp("control-plane")
    server = ApiServer(kubernetes_programs, folder)
    try:
        server.start()
        server.install_aurora_deployments()
        yield server
    finally:
        server.stop()
        # etcd takes 64 MB however little it stores.
        shutil.rmtree(folder / "etcd", ignore_errors=True)


@pytest.fixture(scope="session")
def control_plane(api_server: ApiServer) -> ApiServer:
    """The API server with controller manager and scheduler; nodes are the tests' own."""
    api_server.start_controllers()
    return api_server


@pytest.fixture
def api_namespace(api_server: ApiServer) -> str:
    """A fresh namespace for admission; pods cannot be created in it without `control_plane`."""
    return api_server.create_namespace()


@pytest.fixture
def namespace(control_plane: ApiServer) -> Iterator[str]:
    """A fresh namespace in which pods can be created; deleted in the background after the test."""
    name = control_plane.create_namespace()
    control_plane.await_account(name)
    yield name
    control_plane.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def node(control_plane: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    """The control plane's one node, whose pods are stand-ins."""
    user = control_plane.kubeconfig_of("played-kubelet", *ADMINISTRATORS)
    kubelet = Kubelet(user, tmp_path_factory.mktemp("node"))
    yield kubelet
    kubelet.close()


@pytest.fixture
def kubelet(node: Kubelet) -> Iterator[Kubelet]:
    """The node, reset before and after the test."""
    node.reset()
    yield node
    node.reset()


@pytest.fixture(scope="session")
def operator_user(control_plane: ApiServer, helm: Path) -> str:
    """The operator's account, with the rights from the chart."""
    namespace = control_plane.create_namespace("aurora-system")
    return install_rights(control_plane, helm, namespace)


@pytest.fixture(scope="module")
def cert_manager(
    control_plane: ApiServer, kubernetes_programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CertManager]:
    """A cert-manager; the cluster has its kinds only for the module's tests."""
    made = CertManager(control_plane, kubernetes_programs, tmp_path_factory.mktemp("cert-manager"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def leader_worker_sets(
    control_plane: ApiServer, kubernetes_programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LeaderWorkerSets]:
    """A LeaderWorkerSet controller; the cluster has its kind only for the module's tests."""
    made = LeaderWorkerSets(control_plane, kubernetes_programs, tmp_path_factory.mktemp("lws"))
    yield made
    made.close()


@pytest.fixture
def operator(
    control_plane: ApiServer, operator_user: str, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """The operator, not started yet; its log is shown if the test fails."""
    process = OperatorProcess(control_plane, operator_user, tmp_path)
    yield process
    process.stop()
    sys.stderr.write(process.log())


@pytest.fixture
def proxy(control_plane: ApiServer) -> Iterator[FaultyProxy]:
    """The API server of `proxied_operator`."""
    made = FaultyProxy(control_plane)
    yield made
    made.close()


@pytest.fixture
def proxied_operator(
    control_plane: ApiServer, proxy: FaultyProxy, operator_user: str, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """The operator behind the proxy, not started yet; its log is shown if the test fails."""
    process = OperatorProcess(control_plane, operator_user, tmp_path, url=proxy.url)
    yield process
    process.stop()
    sys.stderr.write(process.log())


@pytest.fixture
def deployments(control_plane: ApiServer, namespace: str) -> Deployments:
    """The AuroraDeployments of a fresh namespace that has a claim for models."""
    found = Deployments(control_plane, namespace)
    found.claim()
    return found
