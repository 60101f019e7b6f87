"""Does an object of the cluster still say what is wanted of it? Where it does, nothing is written.

The API server fills in defaults, other managers add fields, and both are none of our business: an
object is as wanted where all that is desired is found in it, and where it was last applied from
just that (a field that is no longer desired shows in no other way).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from aurora_operator.domain.strategic_merge import MERGE_KEYS, element_key

APPLIED = "aurora.dev/applied"

_UNITS = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{unit: Decimal(1000**power) for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024**power) for power, unit in enumerate("KMGTPE", start=1)},
}
# Below these keys, texts are quantities: "0.5" is written back as "500m".
_QUANTITIES = frozenset({"limits", "requests", "sizeLimit", "averageValue"})
# A Service's ports have a key of their own; a NetworkPolicy's list is one value.
_SERVICE_PORT = ("port", "protocol")


def stamped(desired: Mapping[str, Any]) -> dict[str, Any]:
    """`desired` with the annotation that tells what it was applied from."""
    content = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    metadata = dict(desired["metadata"])
    metadata["annotations"] = {**metadata.get("annotations", {}), APPLIED: digest}
    return {**desired, "metadata": metadata}


def needs_apply(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether `live` lacks something of `desired`, or was applied from something else."""
    return not _holds(desired, live, key="", is_quantity=False)


def _holds(desired: Any, live: Any, *, key: str, is_quantity: bool) -> bool:
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return not desired and live is None
        return all(
            _holds(
                value,
                live.get(name),
                key=name,
                is_quantity=is_quantity or name in _QUANTITIES,
            )
            for name, value in desired.items()
        )
    if isinstance(desired, list):
        return _holds_list(desired, live, key)
    if live is None:
        # What has its type's zero value may be left out.
        return not desired
    if is_quantity:
        return _same_quantity(str(desired), str(live))
    return bool(desired == live)


def _holds_list(desired: Sequence[Any], live: Any, key: str) -> bool:
    if not isinstance(live, list):
        return not desired and live is None
    keys = _keys(desired, key)
    if keys is None:
        return len(desired) == len(live) and all(
            _holds(one, other, key=key, is_quantity=False)
            for one, other in zip(desired, live, strict=True)
        )
    known = {element_key(element, keys): element for element in live}
    return all(
        _holds(element, known.get(element_key(element, keys), {}), key=key, is_quantity=False)
        for element in desired
    )


def _keys(desired: Sequence[Any], key: str) -> tuple[str, ...] | None:
    """What the elements of such a list are told apart by; None where the list is one value."""
    keys = MERGE_KEYS.get(key)
    if key == "ports" and any("targetPort" in element for element in desired):
        keys = _SERVICE_PORT
    if keys is None or any(element_key(element, keys) is None for element in desired):
        return None
    return keys


def _same_quantity(one: str, other: str) -> bool:
    return one == other or (_quantity(one) == _quantity(other) is not None)


def _quantity(text: str) -> Decimal | None:
    number = text.rstrip("mkMGTPEiK")
    unit = _UNITS.get(text[len(number) :])
    try:
        return None if unit is None else Decimal(number) * unit
    except InvalidOperation:
        return None
