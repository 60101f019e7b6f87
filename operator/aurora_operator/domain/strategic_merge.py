"""Kubernetes' strategic merge of a patch over a pod template.

Objects merge key by key, and null removes a key. Lists whose elements have a name of their own
merge element by element, as kubectl does it; `$patch: delete` removes one. Any other list is
replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The patchMergeKey of core/v1's types; further keys tell apart what shares the first one.
MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "hostAliases": ("ip",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_DEFAULTS = {"protocol": "TCP"}
_DIRECTIVE = "$patch"


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` over it; neither is changed."""
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        elif key in MERGE_KEYS and isinstance(value, list):
            result[key] = _merged_list(result.get(key) or [], value, MERGE_KEYS[key])
        else:
            result[key] = value
    return result


def element_key(element: Any, keys: tuple[str, ...]) -> tuple[Any, ...] | None:
    """What tells one element of a list from its siblings; None where it has no such thing."""
    if not isinstance(element, Mapping) or keys[0] not in element:
        return None
    return tuple(element.get(key, _DEFAULTS.get(key)) for key in keys)


def _merged_list(
    base: Sequence[Any], patch: Sequence[Any], keys: tuple[str, ...]
) -> list[dict[str, Any]]:
    result = list(base)
    for element in patch:
        wanted = element_key(element, keys)
        place = next(
            (
                index
                for index, known in enumerate(result)
                if wanted is not None and element_key(known, keys) == wanted
            ),
            None,
        )
        if isinstance(element, Mapping) and element.get(_DIRECTIVE) == "delete":
            if place is not None:
                del result[place]
        elif place is None:
            result.append(merged({}, element) if isinstance(element, Mapping) else element)
        else:
            result[place] = merged(result[place], element)
    return result
