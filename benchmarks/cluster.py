"""An API server with the operator, and when AuroraDeployments settle, by the audit log."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from support.audit import WRITES
from support.control_plane import ApiServer
from support.operator_process import OperatorProcess, install_rights

_OBTAIN = Path(__file__).parents[1] / "tools/kubernetes/obtain.py"
_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "helm")
_CREATORS = 8
_POLL_SECONDS = 0.2
_WAIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Write:
    """A write that the API server accepted; times are its clock's, in seconds."""

    user: str
    verb: str
    resource: str
    subresource: str
    name: str
    created: bool
    received_at: float
    answered_at: float


class Writes:
    """Follows the audit log: each `read` returns the writes since the last one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Write]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        # The last line may be incomplete.
        content = content[: content.rfind(b"\n") + 1]
        self._offset += len(content)
        events = (json.loads(line) for line in content.splitlines())
        return [
            _write(event)
            for event in events
            if event["verb"] in WRITES and event["responseStatus"].get("code", 0) < 300
        ]


def _write(event: dict[str, Any]) -> Write:
    target = event["objectRef"]
    return Write(
        user=event["user"]["username"],
        verb=event["verb"],
        resource=target["resource"],
        subresource=target.get("subresource", ""),
        name=target.get("name", ""),
        created=event["responseStatus"]["code"] == 201,
        received_at=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
        answered_at=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
    )


class Settling:
    """When each of some deployments was created, got its last child, and its status.

    A child's name is its deployment's, or begins with it and `-`; `children`: the number of
    children of each.
    """

    def __init__(self, user: str, names: Sequence[str], children: int) -> None:
        self._user = user
        self._names = frozenset(names)
        self._children = children
        self._created: dict[str, float] = {}
        self._applied: defaultdict[str, list[float]] = defaultdict(list)
        self._reported: dict[str, float] = {}

    def take(self, write: Write) -> None:
        if write.resource == "auroradeployments":
            if write.verb == "create":
                self._created[write.name] = write.received_at
            elif write.user == self._user and write.subresource == "status":
                self._reported.setdefault(write.name, write.answered_at)
        elif (
            write.user == self._user
            and write.created
            and (owner := self._owner(write.name)) is not None
        ):
            self._applied[owner].append(write.answered_at)

    @property
    def is_over(self) -> bool:
        return all(
            len(self._applied[name]) >= self._children and name in self._reported
            for name in self._names
        )

    @property
    def seconds(self) -> float:
        """From the first creation to the last that settled."""
        ends = [max(self._reported[name], *self._applied[name]) for name in self._names]
        return max(ends) - min(self._created[name] for name in self._names)

    def apply_seconds(self) -> list[float]:
        """For each, from its creation to its last child."""
        return [max(self._applied[name]) - self._created[name] for name in self._names]

    def _owner(self, name: str) -> str | None:
        parts = name.split("-")
        found = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((each for each in found if each in self._names), None)


class Restoring:
    """How long the operator takes to make anew what another writer deleted."""

    def __init__(self, user: str, count: int) -> None:
        self._user = user
        self._count = count
        self._deleted: dict[tuple[str, str], float] = {}
        # A deletion is heard of before it is answered: the log may have this first.
        self._created: dict[tuple[str, str], float] = {}

    def take(self, write: Write) -> None:
        place = (write.resource, write.name)
        if write.verb == "delete" and write.user != self._user:
            self._deleted.setdefault(place, write.answered_at)
        elif write.created and write.user == self._user:
            self._created.setdefault(place, write.answered_at)

    @property
    def _restored(self) -> set[tuple[str, str]]:
        return self._deleted.keys() & self._created.keys()

    @property
    def is_over(self) -> bool:
        return len(self._restored) >= self._count

    def seconds(self) -> list[float]:
        return [max(0.0, self._created[one] - self._deleted[one]) for one in self._restored]


class Cluster:
    """One API server and one operator, which is primed; `folder` is for more processes."""

    def __init__(
        self, server: ApiServer, programs: Path, operator: OperatorProcess, folder: Path
    ) -> None:
        self.server = server
        self.programs = programs
        self.operator = operator
        self.folder = folder
        self.writes = Writes(folder / "audit.log")
        self.namespace = server.create_namespace("bench")
        self.path = f"/apis/aurora.dev/v1alpha1/namespaces/{self.namespace}/auroradeployments"

    @property
    def process(self) -> psutil.Process:
        assert self.operator.pid is not None
        return psutil.Process(self.operator.pid)

    def cpu_seconds(self) -> float:
        """The operator's processor time so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def create(self, bodies: Sequence[dict[str, Any]]) -> None:
        """Creates deployments, several at a time."""
        with ThreadPoolExecutor(_CREATORS) as pool:
            list(pool.map(lambda body: self.server.request("POST", self.path, body), bodies))

    def follow(self, take: Callable[[Write], None], is_over: Callable[[], bool]) -> None:
        """Passes on writes until `is_over`."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while not is_over():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not settled in time:\n{self.operator.log()}")
            time.sleep(_POLL_SECONDS)
            for write in self.writes.read():
                take(write)


def body(name: str) -> dict[str, Any]:
    """A typical deployment."""
    return {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": name},
        "spec": {
            "target": {"uri": "pvc://models/target"},
            "buffer": {"embedded": {}},
            "modelStore": {"pvc": {"claimName": "models"}},
            "rollout": {"steps": [{"weightPercent": 20}, {"weightPercent": 50}]},
        },
    }


def _await_writes(server: ApiServer) -> None:
    """Waits out the two seconds for which an API server delays the first write of a new kind."""
    namespace = server.create_namespace("first")
    path = f"/apis/aurora.dev/v1alpha1/namespaces/{namespace}/auroradeployments"
    server.request("POST", path, body("first"))
    server.request("DELETE", f"{path}/first")


@contextmanager
def api_server() -> Iterator[tuple[ApiServer, Path, Path]]:
    """A fresh API server for the block, the programs' folder, and one for the block."""
    told = subprocess.run(
        [sys.executable, _OBTAIN, *_PROGRAMS], stdout=subprocess.PIPE, text=True, check=True
    )
    programs = Path(told.stdout.strip())
    with tempfile.TemporaryDirectory(prefix="aurora-bench-") as name:
        folder = Path(name)
        server = ApiServer(programs, folder)
        try:
            server.start()
            server.install_aurora_deployments()
            _await_writes(server)
            yield server, programs, folder
        finally:
            server.stop()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A fresh cluster for the block, without controller manager, scheduler and nodes."""
    with api_server() as (server, programs, folder):
        user = install_rights(server, programs / "helm", server.create_namespace("aurora-system"))
        operator = OperatorProcess(server, user, folder)
        operator.start()
        try:
            yield Cluster(server, programs, operator, folder)
        finally:
            operator.stop()
