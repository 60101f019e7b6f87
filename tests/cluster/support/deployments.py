"""AuroraDeployments for tests: applied, waited for, deleted."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

from kubernetes.client.exceptions import ApiException
from support.control_plane import ApiServer

Json = dict[str, Any]
_SECONDS = 30.0
_POLL_SECONDS = 0.05
_CLAIM = "models"


def wait_until(
    condition: Callable[[], Any], *, seconds: float = _SECONDS, why: Callable[[], object] = str
) -> Any:
    """Polls a condition until it is true and returns its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"does not become true: {why()}"
        time.sleep(_POLL_SECONDS)
    return found


class Deployments:
    """The AuroraDeployments of one namespace."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self._server = server
        self.namespace = namespace

    def claim(self, name: str = _CLAIM) -> None:
        """Creates a claim for models."""
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}}
        self.apply_object("v1", "persistentvolumeclaims", {**body, "spec": spec})

    def apply(self, name: str = "chat", **spec: Any) -> Json:
        """Applies a small deployment, with the given fields of its spec replaced."""
        body = {
            "apiVersion": "aurora.dev/v1alpha1",
            "kind": "AuroraDeployment",
            "metadata": {"name": name},
            "spec": copy.deepcopy(_SPEC) | spec,
        }
        applied: Json = self.apply_object("aurora.dev/v1alpha1", "auroradeployments", body)
        return applied

    def annotate(self, name: str, annotations: dict[str, str]) -> None:
        """Sets annotations and changes nothing else."""
        path = f"{self._path('aurora.dev/v1alpha1', 'auroradeployments', name)}"
        body = {
            "apiVersion": "aurora.dev/v1alpha1",
            "kind": "AuroraDeployment",
            "metadata": {"annotations": annotations},
        }
        self._server.request("PATCH", f"{path}?fieldManager=annotations&force=true", body)

    def steer(self, name: str = "chat", **spec: Any) -> None:
        """Sets fields of the spec as another manager, as a command does, and leaves the rest."""
        path = self._path("aurora.dev/v1alpha1", "auroradeployments", name)
        body = {"apiVersion": "aurora.dev/v1alpha1", "kind": "AuroraDeployment", "spec": spec}
        self._server.request("PATCH", f"{path}?fieldManager=command&force=true", body)

    def apply_object(self, version: str, plural: str, body: Json) -> Json:
        """Applies any object of the namespace."""
        path = self._path(version, plural, body["metadata"]["name"])
        applied: Json = self._server.request("PATCH", f"{path}?fieldManager=test&force=true", body)
        return applied

    def apply_status(self, version: str, plural: str, name: str, status: Json) -> None:
        """Applies to the status of an object of the namespace."""
        found = self.object(version, plural, name)
        body = {"apiVersion": version, "kind": found["kind"], "metadata": {"name": name}}
        path = f"{self._path(version, plural, name)}/status?fieldManager=test&force=true"
        self._server.request("PATCH", path, {**body, "status": status})

    def delete_object(self, version: str, plural: str, name: str) -> None:
        self._server.request("DELETE", self._path(version, plural, name))

    def get(self, name: str = "chat") -> Json:
        found: Json = self.object("aurora.dev/v1alpha1", "auroradeployments", name)
        return found

    def status(self, name: str = "chat") -> Json:
        status: Json = self.get(name).get("status", {})
        return status

    def condition(self, kind: str, name: str = "chat") -> Json:
        """A condition of the status; empty if absent."""
        found = self.status(name).get("conditions", ())
        return next((each for each in found if each["type"] == kind), {})

    def object(self, version: str, plural: str, name: str) -> Json:
        found: Json = self._server.request("GET", self._path(version, plural, name))
        return found

    def objects(self, version: str, plural: str, labels: str = "") -> list[Json]:
        query = f"?labelSelector={labels}" if labels else ""
        found: list[Json] = self._server.request("GET", self._path(version, plural) + query)[
            "items"
        ]
        return found

    def pods(self, component: str, name: str = "chat") -> list[Json]:
        labels = f"app.kubernetes.io/instance={name},app.kubernetes.io/component={component}"
        return self.objects("v1", "pods", labels)

    def delete(self, name: str = "chat") -> None:
        self._server.request("DELETE", self._path("aurora.dev/v1alpha1", "auroradeployments", name))

    def is_there(self, version: str, plural: str, name: str) -> bool:
        try:
            self.object(version, plural, name)
        except ApiException as error:
            if error.status != 404:
                raise
            return False
        return True

    def await_status(
        self, condition: Callable[[Json], Any], name: str = "chat", *, seconds: float = _SECONDS
    ) -> Json:
        """Waits until the status fulfils a condition and returns it."""

        def found() -> Json | None:
            status = self.status(name)
            return status if condition(status) else None

        def why() -> str:
            return json.dumps(self.status(name), indent=1)

        status: Json = wait_until(found, seconds=seconds, why=why)
        return status

    def await_ready(self, name: str = "chat", *, seconds: float = _SECONDS) -> Json:
        return self.await_status(
            lambda status: any(
                each["type"] == "Ready" and each["status"] == "True"
                for each in status.get("conditions", ())
            ),
            name,
            seconds=seconds,
        )

    def _path(self, version: str, plural: str, name: str = "") -> str:
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        end = f"/{name}" if name else ""
        return f"{root}/namespaces/{self.namespace}/{plural}{end}"


# A far better candidate passes both steps in seconds.
_SPEC: Json = {
    "target": {"uri": f"pvc://{_CLAIM}/target"},
    "buffer": {"embedded": {}},
    "modelStore": {"pvc": {"claimName": _CLAIM}, "keep": 2},
    "rollout": {
        "steps": [{"weightPercent": 20}, {"weightPercent": 50}],
        "analysis": {"method": "Canary", "minRequests": 100},
    },
}
