"""What a kubelet writes into a pod's status: values in, JSON out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Container:
    """A container as its kubelet sees it; `state` and `last_state` as in the pod's status."""

    name: str
    image: str
    state: Json
    last_state: Json
    restarts: int = 0
    ready: bool = False

    @staticmethod
    def created(name: str, image: str) -> Container:
        return Container(name, image, waiting("ContainerCreating"), {})

    @property
    def is_running(self) -> bool:
        return "running" in self.state

    def held(self, reason: str, message: str) -> Container:
        """One that cannot start, and why."""
        return replace(self, state=waiting(reason, message), ready=False)

    def started(self) -> Container:
        return replace(self, state={"running": {"startedAt": now()}}, ready=False)

    def ended(self, exit_code: int, message: str = "", *, reason: str = "") -> Container:
        """One whose process is gone."""
        end: Json = {
            "exitCode": exit_code,
            "reason": reason or ("Error" if exit_code else "Completed"),
            "startedAt": self.state.get("running", {}).get("startedAt", now()),
            "finishedAt": now(),
        }
        if message:
            end["message"] = message
        return replace(self, state={"terminated": end}, ready=False)

    def backing_off(self, pod: str) -> Container:
        """One that ended and is not started again yet; `pod`: as in the kubelet's message."""
        message = f"back-off 10s restarting failed container={self.name} pod={pod}"
        return replace(
            self,
            state=waiting("CrashLoopBackOff", message),
            last_state=self.state,
            restarts=self.restarts + 1,
        )

    def status(self) -> Json:
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "state": self.state,
            "lastState": self.last_state,
            "restartCount": self.restarts,
            "ready": self.ready,
            "started": self.is_running,
        }


def waiting(reason: str, message: str = "") -> Json:
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def pod_status(pod: Json, containers: Iterable[Container], address: str, host: str) -> Json:
    """The whole status; conditions that did not change keep their time."""
    found = list(containers)
    before = {each["type"]: each for each in pod.get("status", {}).get("conditions", ())}
    unready = [container.name for container in found if not container.ready]
    problem = f"containers with unready status: [{' '.join(unready)}]"
    all_ready = ("True", "", "") if not unready else ("False", "ContainersNotReady", problem)
    conditions = [
        _condition(before, "PodReadyToStartContainers", "True" if address else "False"),
        _condition(before, "Initialized", "True"),
        _condition(before, "Ready", *all_ready),
        _condition(before, "ContainersReady", *all_ready),
    ]
    kinds = {each["type"] for each in conditions}
    conditions += [each for kind, each in before.items() if kind not in kinds]
    status: Json = {
        "phase": "Running"
        if any(each.is_running or each.restarts for each in found)
        else "Pending",
        "conditions": conditions,
        "containerStatuses": [container.status() for container in found],
        "hostIP": host,
        "startTime": pod.get("status", {}).get("startTime") or now(),
    }
    if address:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    return status


def _condition(
    before: dict[str, Json], kind: str, value: str, reason: str = "", message: str = ""
) -> Json:
    known = before.get(kind, {})
    same = known.get("status") == value
    since = known["lastTransitionTime"] if same else now()
    condition: Json = {"type": kind, "status": value, "lastTransitionTime": since}
    return condition | ({"reason": reason, "message": message} if reason else {})
