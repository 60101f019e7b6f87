"""The CustomResourceDefinition, derived from the types of spec and status.

JSON schemas become structural ones: references are inlined, null is dropped, and defaults are part
of the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from aurora_operator.domain.manifest.field_type import NAME, rule
from aurora_operator.domain.manifest.spec import Spec
from aurora_operator.domain.status.status_json import STATUS

Json = dict[str, Any]

GROUP, VERSION, KIND, PLURAL = "aurora.dev", "v1alpha1", "AuroraDeployment", "auroradeployments"

_INT32 = 2**31 - 1
# Copied as they are.
_KEPT = (
    "type", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-validations",
    "x-kubernetes-list-map-keys",
)  # fmt: skip
_COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0),
    ("Replicas", "integer", ".status.replicas", 0),
    ("Stable", "string", ".status.stable.checkpoint", 0),
    ("Candidate", "string", ".status.rollout.candidate.checkpoint", 0),
    ("State", "string", ".status.rollout.state", 0),
    ("Evidence", "string", ".status.rollout.evidence.promotingLogE", 0),
    ("Threshold", "string", ".status.rollout.evidence.promotionThreshold", 1),
    ("Requests", "integer", ".status.rollout.evidence.requests", 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)

_UNSEEN = {
    "type": "Ready",
    "status": "Unknown",
    "reason": "Unseen",
    "message": "waiting for the operator",
    "lastTransitionTime": "1970-01-01T00:00:00Z",
    "observedGeneration": 0,
}


def definition() -> Json:
    """The CustomResourceDefinition of AuroraDeployments."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["adep"],
                "categories": ["all", "aurora"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in _COLUMNS
                    ],
                }
            ],
        },
    }


def _root() -> Json:
    status = _structural(STATUS.schema, {})
    conditions = status["properties"]["conditions"]
    conditions["x-kubernetes-list-type"] = "map"
    conditions["x-kubernetes-list-map-keys"] = ["type"]
    conditions["items"]["required"] = ["type", "status"]
    conditions["items"]["properties"]["status"]["enum"].append("Unknown")
    # Without it, tools that know conditions alone take a deployment that nobody has seen for well.
    status["default"] = {"conditions": [_UNSEEN]}
    return {
        "type": "object",
        "description": "Speculative decoding whose draft keeps learning from live traffic.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # Declared so that the rule below can refer to it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": structural_schema(Spec),
            "status": status,
        },
        "x-kubernetes-validations": [
            rule(
                f"self.metadata.name.matches(r'{NAME.pattern}')",
                NAME.allowed,
                "metadata.name",
            )
        ],
    }


def structural_schema(model: type[BaseModel]) -> Json:
    """The model's structural schema."""
    schema = model.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def _structural(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Json:
    if schema.get("x-kubernetes-int-or-string"):
        return dict(schema)
    schema = _resolved(schema, known)
    result = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    match schema.get("type"):
        case "object":
            result |= _object(schema, known)
        case "array":
            result["items"] = _structural(schema["items"], known)
            result.setdefault("maxItems", schema.get("maxItems", 100))
            result["x-kubernetes-list-type"] = schema.get("x-kubernetes-list-type", "atomic")
        case "integer":
            large = schema.get("maximum", _INT32 + 1) > _INT32
            result["format"] = "int64" if large else "int32"
    if (default := schema.get("default")) is not None:
        if not isinstance(default, Mapping):
            result["default"] = default
        elif any("default" in field for field in result["properties"].values()):
            # An absent object is filled in only if any of its fields has a default.
            result["default"] = {}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    return result


def _object(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Json:
    if "properties" in schema:
        result: Json = {
            "properties": {
                name: _structural(field, known) for name, field in schema["properties"].items()
            }
        }
        if schema.get("required"):
            result["required"] = list(schema["required"])
        return result
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        return {"additionalProperties": _structural(values, known)}
    return {"x-kubernetes-preserve-unknown-fields": True}


def _resolved(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Json:
    """The schema with references and null resolved; keys beside them take precedence."""
    result = dict(schema)
    for key in ("anyOf", "allOf"):
        if key in result:
            (only,) = [one for one in result.pop(key) if one.get("type") != "null"]
            result = {**_resolved(only, known), **result}
    if (name := result.pop("$ref", None)) is not None:
        result = {**_resolved(known[name.rpartition("/")[2]], known), **result}
    return result
