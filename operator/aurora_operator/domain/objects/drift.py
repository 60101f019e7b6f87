"""Whether a live object has drifted from the desired one; if not, nothing is written.

The API server's defaults and fields of other managers do not count: an object is up to date if it
contains everything desired and was last applied from exactly that, which is the only trace of a
field that is no longer desired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aurora_operator.domain.manifest.quantity import parse_quantity
from aurora_operator.domain.objects.strategic_merge import MERGE_KEYS

APPLIED = "aurora.dev/applied"

# Strings below these keys are quantities: "0.5" comes back as "500m".
_QUANTITIES = frozenset({"limits", "requests", "overhead", "sizeLimit", "divisor", "averageValue"})
# The API server may omit zero values, except of these, whose absence means something else.
_NEVER_LEFT_OUT = frozenset(
    {
        "allowPrivilegeEscalation",
        "automountServiceAccountToken",
        "emptyDir",
        "enableServiceLinks",
        "hostUsers",
        "maxSurge",
        "maxUnavailable",
        "replicas",
    }
)
# The rules of a NetworkPolicy: anything added opens or closes a path.
_EXACT = frozenset({"ingress", "egress"})
# The keys of list elements in server-side apply (listMapKey).
_KEYS: Mapping[str, tuple[str, ...]] = {
    **{name: (key,) for name, key in MERGE_KEYS.items()},
    "ports": ("containerPort", "protocol"),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    # Others may own an object too, without controlling it.
    "ownerReferences": ("uid",),
}
# A Service's ports have a key of their own.
_SERVICE_PORT = ("port", "protocol")
_DEFAULTS = {"protocol": "TCP"}


def stamped(desired: Mapping[str, Any]) -> dict[str, Any]:
    """`desired` with an annotation that records what it was applied from."""
    content = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    metadata = dict(desired["metadata"])
    metadata["annotations"] = {**metadata.get("annotations", {}), APPLIED: digest}
    return {**desired, "metadata": metadata}


def needs_apply(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether `live` lacks part of `desired` or was applied from something else."""
    return not _holds(desired, live, key="", is_quantity=False)


def _holds(desired: Any, live: Any, *, key: str, is_quantity: bool) -> bool:
    if live is None:
        return not desired and key not in _NEVER_LEFT_OUT
    if key in _EXACT:
        return bool(desired == live)
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            _holds(
                value,
                live.get(name),
                key=name,
                is_quantity=is_quantity or name in _QUANTITIES,
            )
            for name, value in desired.items()
        )
    if isinstance(desired, list):
        return isinstance(live, list) and _holds_list(desired, live, key)
    if is_quantity:
        return _same_quantity(str(desired), str(live))
    return bool(desired == live)


def _holds_list(desired: Sequence[Any], live: Sequence[Any], key: str) -> bool:
    keys = _keys(desired, key)
    if keys is None:
        return len(desired) == len(live) and all(
            _holds(one, other, key="", is_quantity=False)
            for one, other in zip(desired, live, strict=True)
        )
    known = {_element_key(element, keys): element for element in live}
    return all(
        _holds(element, known.get(_element_key(element, keys)), key="", is_quantity=False)
        for element in desired
    )


def _keys(desired: Sequence[Any], key: str) -> tuple[str, ...] | None:
    """The keys of such a list's elements; None if the list is atomic."""
    keys = _KEYS.get(key)
    if key == "ports" and any("targetPort" in element for element in desired):
        keys = _SERVICE_PORT
    if keys is None or any(_element_key(element, keys) is None for element in desired):
        return None
    return keys


def _element_key(element: Any, keys: tuple[str, ...]) -> tuple[Any, ...] | None:
    """The key of one list element; None if it has none."""
    if not isinstance(element, Mapping) or keys[0] not in element:
        return None
    return tuple(element.get(key, _DEFAULTS.get(key)) for key in keys)


def _same_quantity(one: str, other: str) -> bool:
    return one == other or parse_quantity(one) == parse_quantity(other) is not None
