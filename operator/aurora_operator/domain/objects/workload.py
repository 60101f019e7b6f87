"""The health of a deployment's components, from the objects that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aurora_operator.domain.objects.cause import (
    Cause,
    Json,
    Surroundings,
    leaving_cause,
    missing_cause,
    pod_cause,
)
from aurora_operator.domain.plan.observation import ComponentView, Scale

_FAILED_CREATE = ("FailedCreate",)


def component_view(
    component: str, workload: Json | None, pods: Sequence[Json], around: Surroundings
) -> ComponentView | None:
    """The component that a workload, of any kind, runs in `pods`; None if scaled to zero.

    A component is ready while as many pods are ready as are wanted, of any template; if its newest
    template cannot be rolled out, it is `failing` all the same.
    """
    if workload is None:
        return ComponentView(component, ready=False, message="is not created yet")
    wanted = _wanted(workload)
    if wanted == 0:
        return None
    staying = _staying(pods)
    ready = sum(1 for pod in staying if pod_cause(pod, around) is None)
    cause = _cause(workload, staying, around)
    if cause is None and ready < wanted:
        cause = _missing(component, pods, wanted, around)
    return ComponentView(
        component,
        ready=ready >= wanted,
        failing=cause is not None and cause.failing,
        message="" if cause is None else cause.message,
    )


def ending_view(component: str, pods: Sequence[Json], around: Surroundings) -> ComponentView | None:
    """A component of which nothing is wanted, while a pod of it is left; else None."""
    if not pods:
        return None
    causes = [
        (pod["metadata"]["name"], leaving_cause(pod, around))
        for pod in pods
        if "deletionTimestamp" in pod["metadata"]
    ]
    name, cause = max(causes, key=lambda each: each[1].failing, default=("", None))
    return ComponentView(
        component,
        ready=False,
        failing=cause is not None and cause.failing,
        message="" if cause is None else f"pod {name} {cause.message}",
    )


def scale(workload: Json, pods: Sequence[Json], labels: Mapping[str, str]) -> Scale:
    """The inference pods, which `labels` select, as the scale subresource counts them."""
    status = workload.get("status", {})
    staying = _staying(pods)
    # Until its controller has observed the newest template, no pod has it. A LeaderWorkerSet does
    # not say what it has observed.
    generation = workload["metadata"].get("generation", 0)
    is_current = status.get("observedGeneration", generation) >= generation
    return Scale(
        wanted=_wanted(workload),
        replicas=len(staying),
        ready=sum(1 for pod in staying if _is_ready(pod)),
        updated=status.get("updatedReplicas", 0) if is_current else 0,
        selector=",".join(f"{name}={value}" for name, value in sorted(labels.items())),
    )


def together(deployments: Sequence[Json]) -> dict[str, Any]:
    """Many Deployments, as of gateways, as if they were one."""
    bodies = [(each["metadata"], each["spec"], each.get("status", {})) for each in deployments]
    current = [
        status
        for metadata, _, status in bodies
        if status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    ]
    times = [metadata["creationTimestamp"] for metadata, _, _ in bodies]
    return {
        "kind": "Deployment",
        "metadata": {"creationTimestamp": max(times)} if times else {},
        "spec": {"replicas": sum(spec.get("replicas", 1) for _, spec, _ in bodies)},
        "status": {
            "replicas": sum(status.get("replicas", 0) for _, _, status in bodies),
            "updatedReplicas": sum(status.get("updatedReplicas", 0) for status in current),
            "conditions": [
                condition for _, _, status in bodies for condition in status.get("conditions", ())
            ],
        },
    }


def _missing(component: str, pods: Sequence[Json], wanted: int, around: Surroundings) -> Cause:
    """A StatefulSet's pod is only replaced once it is gone."""
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            cause = leaving_cause(pod, around)
            return Cause(f"pod {pod['metadata']['name']} {cause.message}", cause.failing)
    return missing_cause(component, len(_staying(pods)), wanted, around)


def _wanted(workload: Json) -> int:
    return int(workload["spec"].get("replicas", 1))


def _staying(pods: Sequence[Json]) -> list[Json]:
    """Those that are neither terminating nor completed."""
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and pod.get("status", {}).get("phase") != "Succeeded"
    ]


def _is_ready(pod: Json) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions", ())
    )


def _cause(workload: Json, pods: Sequence[Json], around: Surroundings) -> Cause | None:
    """The most informative cause."""
    found = [
        (pod["metadata"]["name"], cause)
        for pod in pods
        if (cause := pod_cause(pod, around)) is not None
    ]
    failing = [(name, cause) for name, cause in found if cause.failing]
    if not failing and (refused := _refused(workload, len(pods), around)):
        return Cause(f"its pods are refused: {refused}", failing=True)
    causes = failing or found
    if not causes:
        return None
    name, cause = causes[0]
    more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
    return Cause(f"pod {name}: {cause.message}{more}", cause.failing)


def _refused(workload: Json, count: int, around: Surroundings) -> str:
    """Why the API server rejects further pods (a quota, Pod Security), or empty."""
    for condition in workload.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message", ""))
    # A StatefulSet has no such condition, only an event; that of a LeaderWorkerSet has its name.
    if workload.get("kind") != "Deployment" and count < _wanted(workload):
        return around.event("StatefulSet", workload["metadata"]["name"], _FAILED_CREATE)
    return ""
