"""Why a pod is not ready, as scheduler, kubelet or the program report it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Json = Mapping[str, Any]

# A container that has run this long without being ready is not just starting, and a pod that
# scheduler or kubelet have left alone this long is not just waiting for its turn.
_STARTING = timedelta(seconds=60)
# A large image takes long to pull.
_CREATING = timedelta(minutes=10)
# What a kubelet may take beyond the grace period.
_ENDING = timedelta(seconds=30)
_LONGEST_LINE_CHARACTERS = 300

_IMAGE = frozenset(
    {
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONFIG = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        "PostStartHookError",
        "RunContainerError",
    }
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is not ready; `failing` if it is unlikely to recover by itself."""

    message: str
    failing: bool


# Kind and name of the object, and its events in any order.
EventsByObject = Mapping[tuple[str, str], Sequence[Json]]


def by_object(events: Iterable[Json]) -> EventsByObject:
    """A namespace may have thousands, and each of its pods may ask."""
    found: dict[tuple[str, str], list[Json]] = {}
    for event in events:
        about = event.get("involvedObject", {})
        found.setdefault((about.get("kind", ""), about.get("name", "")), []).append(event)
    return found


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known besides the pods.

    `claims`: PersistentVolumeClaims by name, None if one does not exist, absent if it was not
    looked up. `events`: recent Events of the namespace, by what they are about. `missing`: since
    when a component has had fewer pods than are wanted.
    """

    now: datetime
    claims: Mapping[str, Json | None]
    events: EventsByObject
    missing: Mapping[str, datetime] = field(default_factory=dict)

    def event(self, kind: str, name: str, reasons: Collection[str]) -> str:
        """The message of the newest event about an object, or empty."""
        about = self.events.get((kind, name), ())
        found = [event for event in about if event.get("reason", "") in reasons]
        newest = max(found, key=_seen_at, default=None)
        return "" if newest is None else _one_line(newest.get("message"))


def pod_cause(pod: Json, around: Surroundings) -> Cause | None:
    """Why the pod is not ready; None if it is."""
    status = pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    if conditions.get("Ready", {}).get("status") == "True":
        return None
    if status.get("phase") == "Failed":
        reason = status.get("reason") or "failed"
        return Cause(f"{reason}: {_one_line(status.get('message'))}", failing=True)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return _unscheduled(pod, scheduled, around)
    found = _container_causes(pod, around)
    if not found:
        return _silent(pod, conditions, around)
    return next((cause for cause in found if cause.failing), found[0])


def leaving_cause(pod: Json, around: Surroundings) -> Cause:
    """Why a pod that is being deleted is still there."""
    due = _time(pod["metadata"]["deletionTimestamp"], around.now)
    if around.now - due < _ENDING:
        return Cause("is ending", failing=False)
    held = pod["metadata"].get("finalizers")
    node = pod.get("spec", {}).get("nodeName")
    why = f"held by {', '.join(held)}" if held else f"node {node} may not answer"
    return Cause(f"should have ended at {due.isoformat(timespec='seconds')}: {why}", failing=True)


def missing_cause(component: str, count: int, wanted: int, around: Surroundings) -> Cause:
    """Why fewer pods exist than are wanted, though nothing refuses them."""
    message = f"{count} of {wanted} pods are created"
    since = around.missing.get(component, around.now)
    if around.now - since < _STARTING:
        return Cause(message, failing=False)
    return Cause(f"{message}: the controller manager may not run", failing=True)


def _silent(pod: Json, conditions: Mapping[str, Json], around: Surroundings) -> Cause:
    """The cause if no container explains why the pod is not ready."""
    node = pod.get("spec", {}).get("nodeName")
    waits = around.now - _time(pod["metadata"].get("creationTimestamp"), around.now)
    if node is None:
        return Cause("waits for a node", failing=waits > _STARTING)
    if not pod.get("status", {}).get("containerStatuses"):
        since = conditions.get("PodScheduled", {}).get("lastTransitionTime")
        waits = around.now - _time(since, around.now)
        return Cause(f"waits for the kubelet of node {node}", failing=waits > _STARTING)
    # If a node stops answering, its pods become unready and nothing else in them changes.
    why = _one_line(conditions.get("Ready", {}).get("message"))
    return Cause(
        f"is not ready, though its containers are: {why or f'node {node} may not answer'}",
        failing=True,
    )


def _unscheduled(pod: Json, condition: Json, around: Surroundings) -> Cause:
    claim = _claim_cause(pod, around)
    message = f"cannot be scheduled: {_one_line(condition.get('message'))}"
    if condition.get("reason") == "SchedulingGated":
        return Cause("is held back by a scheduling gate", failing=False)
    return Cause(f"{claim}; {message}" if claim else message, failing=True)


def _claim_cause(pod: Json, around: Surroundings) -> str:
    """The problem of the pod's first claim that has one."""
    for volume in pod.get("spec", {}).get("volumes", ()):
        name = volume.get("persistentVolumeClaim", {}).get("claimName")
        if name is None or name not in around.claims:
            continue
        claim = around.claims[name]
        if claim is None:
            return f"PersistentVolumeClaim {name} does not exist"
        phase = claim.get("status", {}).get("phase", "Pending")
        if phase != "Bound":
            reasons = ("ProvisioningFailed", "FailedBinding", "WaitForFirstConsumer")
            why = around.event("PersistentVolumeClaim", name, reasons)
            return f"PersistentVolumeClaim {name} is {phase}" + (f": {why}" if why else "")
    return ""


def _container_causes(pod: Json, around: Surroundings) -> list[Cause]:
    """One per container that is not ready; main containers only once init containers are done.

    A sidecar that runs holds up none, and may wait for one.
    """
    status, spec = pod.get("status", {}), pod.get("spec", {})
    images = {
        container["name"]: container.get("image", "")
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ()))
    }
    sidecars = {
        container["name"]
        for container in spec.get("initContainers", ())
        if container.get("restartPolicy") == "Always"
    }
    first: list[Json] = []
    running: list[Json] = []
    for container in status.get("initContainerStatuses", ()):
        is_beside = container["name"] in sidecars and "running" in container.get("state", {})
        if not container.get("ready"):
            (running if is_beside else first).append(container)
    main = [
        container for container in status.get("containerStatuses", ()) if not container.get("ready")
    ]
    return [
        _container_cause(pod, container, images.get(container["name"], ""), around)
        for container in first or main or running
    ]


def _container_cause(pod: Json, container: Json, image: str, around: Surroundings) -> Cause:
    name, state = container["name"], container.get("state", {})
    if "running" in state:
        return _unready(pod, container, around)
    if "terminated" in state:
        return Cause(f"{name} {_ended(state['terminated'])}", failing=True)
    waiting = state.get("waiting", {})
    reason, message = waiting.get("reason", ""), _one_line(waiting.get("message"))
    if reason in _IMAGE:
        image = container.get("image") or image
        return Cause(f"cannot pull image {image}: {message or reason}", failing=True)
    if reason in _CONFIG:
        return Cause(f"{name} cannot be started: {message or reason}", failing=True)
    ended = container.get("lastState", {}).get("terminated")
    if ended is not None:
        return Cause(f"{name} {_ended(ended)}", failing=True)
    if reason == "CrashLoopBackOff":
        return Cause(f"{name} ends again and again: {message or reason}", failing=True)
    mount = around.event(
        "Pod", pod["metadata"]["name"], ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
    )
    if mount:
        return Cause(f"cannot mount its volumes: {mount}", failing=True)
    # Since it was scheduled, unless a container ran before.
    waits = around.now - _time(pod.get("status", {}).get("startTime"), around.now)
    return Cause(f"{name} is being created", failing=waits > _CREATING)


def _unready(pod: Json, container: Json, around: Surroundings) -> Cause:
    """The cause of a running container that is not ready."""
    name = container["name"]
    probe = around.event("Pod", pod["metadata"]["name"], ("Unhealthy",))
    message = f"{name} runs, but is not ready" + (f": {probe}" if probe else "")
    ended = container.get("lastState", {}).get("terminated")
    if ended is not None:
        return Cause(f"{message}; before, it {_ended(ended)}", failing=True)
    # A startup probe says that it is still starting.
    is_starting = container.get("started") is False
    age = around.now - _time(container["state"]["running"].get("startedAt"), around.now)
    return Cause(message, failing=not is_starting and age > _STARTING)


def _ended(terminated: Json) -> str:
    reason, code = terminated.get("reason") or "Error", terminated.get("exitCode")
    if reason == "OOMKilled":
        return "was killed for using more memory than its limit (OOMKilled)"
    words = last_line(terminated.get("message") or "")
    text = f"ended with exit code {code} ({reason})"
    return f"{text}: {words}" if words else text


def _seen_at(event: Json) -> str:
    """RFC 3339 in UTC, which sorts as text."""
    found = event.get("lastTimestamp") or event.get("eventTime")
    return str(found or event["metadata"].get("creationTimestamp") or "")


def _time(text: str | None, default: datetime) -> datetime:
    return default if text is None else datetime.fromisoformat(text)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def last_line(text: str) -> str:
    """The last line that is not empty, shortened; of a JSON log line, its message and reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _message(lines[-1])[:_LONGEST_LINE_CHARACTERS] if lines else ""


def _message(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or not isinstance(entry.get("message"), str):
        return line
    reason = entry.get("reason")
    return f"{entry['message']}: {reason}" if reason else str(entry["message"])
