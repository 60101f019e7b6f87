"""Kubernetes' strategic merge of a patch over a pod template.

Objects merge key by key, and null removes a key. Lists with a merge key merge element by element,
as in kubectl; `$patch: delete` removes one. Any other list is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The patchMergeKey of core/v1's types.
MERGE_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "hostAliases": "ip",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "topologySpreadConstraints": "topologyKey",
}
_DIRECTIVE = "$patch"


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` patched with `patch`; neither is modified."""
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


def _merged_list(base: Sequence[Any], patch: Sequence[Any], key: str) -> list[Any]:
    result = list(base)
    for element in patch:
        if not isinstance(element, Mapping):
            # Not a PodSpec: the API server rejects it, naming the field.
            result.append(element)
            continue
        place = _place(result, key, element.get(key))
        if element.get(_DIRECTIVE) == "delete":
            if place is not None:
                del result[place]
        elif place is None:
            result.append(merged({}, element))
        else:
            result[place] = merged(result[place], element)
    return result


def _place(elements: Sequence[Any], key: str, wanted: object) -> int | None:
    """The index of the element whose `key` has that value, if any."""
    if wanted is None:
        return None
    for index, known in enumerate(elements):
        if isinstance(known, Mapping) and known.get(key) == wanted:
            return index
    return None
