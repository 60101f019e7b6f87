"""The size of a StatefulSet's volumes.

Its claim templates are immutable, but the claims made from them can grow. So a larger `storage`
leaves the template as it is and enlarges the claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aurora_operator.domain.manifest.quantity import parse_quantity

Json = dict[str, Any]

# Of a claim whose new size is more than its storage can have, or its node can handle.
_INFEASIBLE = frozenset({"ControllerResizeInfeasible", "NodeResizeInfeasible"})
_ERRORS = frozenset({"ControllerResizeError", "NodeResizeError"})


@dataclass(frozen=True, slots=True)
class Growth:
    """A claim that should have a larger size than its template says."""

    claim: str
    storage: str


def with_live_claims(desired: Json, live: Mapping[str, Any]) -> Json:
    """`desired`, with the sizes that the live StatefulSet's claim templates have."""
    sizes = {name: size for name, size in _sizes(live).items() if size}
    templates = [
        _sized(template, sizes.get(template["metadata"]["name"]))
        for template in desired.get("spec", {}).get("volumeClaimTemplates", ())
    ]
    if not templates:
        return desired
    return {**desired, "spec": {**desired["spec"], "volumeClaimTemplates": templates}}


def growths(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[Growth]:
    """The claims of the first pod that should be larger than the live StatefulSet makes them."""
    live_sizes, pod = _sizes(live), f"{desired['metadata']['name']}-0"
    return [
        Growth(f"{name}-{pod}", size)
        for name, size in _sizes(desired).items()
        if is_less(live_sizes.get(name, ""), size)
    ]


def grown(claim: Json, storage: str) -> Json:
    """What to apply to a claim so that it has that size."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {name: metadata[name] for name in ("namespace", "name", "uid")},
        "spec": {"resources": {"requests": {"storage": storage}}},
    }


def requested(claim: Mapping[str, Any]) -> str:
    return str(claim["spec"]["resources"]["requests"]["storage"])


def growth_cause(claim: Mapping[str, Any], storage: str) -> str:
    """Why a claim does not have its size yet; empty if it has."""
    status = claim.get("status", {})
    if not is_less(status.get("capacity", {}).get("storage", ""), storage):
        return ""
    for condition in status.get("conditions", ()):
        if condition["type"] in _ERRORS or condition["type"] == "FileSystemResizePending":
            return " ".join(str(condition.get("message") or condition["type"]).split())
    if (found := status.get("allocatedResourceStatuses", {}).get("storage")) in _INFEASIBLE:
        return str(found)
    return "its volume is not enlarged yet"


def is_less(size: str, other: str) -> bool:
    """Whether a quantity is less than another; False if it is none."""
    one, two = parse_quantity(size), parse_quantity(other)
    return one is not None and two is not None and one < two


def _sizes(stateful_set: Mapping[str, Any]) -> dict[str, str]:
    return {
        template["metadata"]["name"]: requested(template)
        for template in stateful_set.get("spec", {}).get("volumeClaimTemplates", ())
    }


def _sized(template: Json, size: str | None) -> Json:
    if size is None:
        return template
    return {
        **template,
        "spec": {**template["spec"], "resources": {"requests": {"storage": size}}},
    }
