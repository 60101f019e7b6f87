"""Parses a manifest, reporting every problem at once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aurora_common.errors import ManifestError
from aurora_operator.domain.manifest.document import load_document
from aurora_operator.domain.manifest.spec import (
    INNER_PROBLEM,
    PARENT_PROBLEM,
    STEPS_PROBLEM,
    STORED,
    AuroraDeployment,
)
from aurora_operator.domain.manifest.spec.deployment import Metadata

Location = Sequence[int | str]

# What the API server owns: it is in the output of `kubectl get -o yaml`.
_SERVER_METADATA = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)

_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}
_KINDS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "an object of strings",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def parse_manifest(text: str, source: str) -> AuroraDeployment:
    """The AuroraDeployment in `text` (YAML or JSON).

    Raises ManifestError listing every problem with its path and what is allowed; `source` names
    the text in it, for example by file.
    """
    document = load_document(text)
    problems = list(document.problems)
    if document.content is not None or not problems:
        deployment, found = _read(_without_server_fields(document.content))
        problems += found
        if deployment is not None and not problems:
            return deployment
    raise ManifestError(source, problems)


def deployment_from_object(body: Mapping[str, Any]) -> AuroraDeployment:
    """The AuroraDeployment that the API server stores as `body`.

    Raises ManifestError as `parse_manifest` does if it was admitted by another schema; a retention
    that exceeds its bounds is left to `Buffer.excess`.
    """
    metadata = body["metadata"]
    known = {key: metadata[key] for key in Metadata.model_fields if key in metadata}
    content = _without_server_fields({**body, "metadata": known})
    deployment, problems = _read(content, context=STORED)
    if deployment is None:
        raise ManifestError(f"{metadata.get('namespace')}/{metadata.get('name')}", problems)
    return deployment


def _without_server_fields(content: object) -> object:
    """The content without its status and what the API server adds to the metadata."""
    if not isinstance(content, Mapping):
        return content
    fields = {key: value for key, value in content.items() if key != "status"}
    if isinstance(metadata := fields.get("metadata"), Mapping):
        fields["metadata"] = {
            key: value for key, value in metadata.items() if key not in _SERVER_METADATA
        }
    return fields


def _read(content: object, *, context: str = "") -> tuple[AuroraDeployment | None, list[str]]:
    """The deployment, or every problem found."""
    try:
        return AuroraDeployment.model_validate(content, context=context), []
    except ValidationError as error:
        return None, [
            problem for details in error.errors(include_url=False) for problem in _problems(details)
        ]


def _problems(details: ErrorDetails) -> list[str]:
    """The lines to report for one pydantic error."""
    location, kind = details["loc"], details["type"]
    context = details.get("ctx", {})
    if kind == STEPS_PROBLEM:
        return [
            f"{_path(location)}[{index}].weightPercent: {text}; weights must increase"
            for index, text in context["problems"]
        ]
    if kind == PARENT_PROBLEM:
        return [f"{_path(location[:-1])}: {context['text']}"]
    if kind == INNER_PROBLEM:
        shown = _shown(details["input"].get(context["field"]))
        return [
            f"{_path((*location, context['field']))}: {shown} is not allowed; {context['text']}"
        ]
    return [f"{_path(location)}: {_reason(details, context)}"]


def _reason(details: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind, location, value = details["type"], details["loc"], details["input"]
    shown = _shown(value)
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden" | "invalid_key":
            return _unknown_key(location)
        case "literal_error":
            return f"{shown} is not allowed; allowed: {_alternatives(context['expected'])}"
        case "greater_than_equal" | "less_than_equal":
            key, words = _LIMITS[kind]
            return f"{shown} is not allowed; it must be {words} {context[key]}"
        case "value_error":
            return str(context["error"])
        case "string_type" if isinstance(value, int | float) and not isinstance(value, bool):
            return f'{shown} must be a string; write it in quotes: "{shown}"'
        case _ if kind in _KINDS:
            return f"{shown} is not {_KINDS[kind]}"
        case _:
            return details["msg"]


def _alternatives(expected: str) -> str:
    """pydantic's `'a', 'b' or 'c'` as `a, b, c`."""
    return expected.replace(" or ", ", ").replace("'", "")


def _unknown_key(location: Location) -> str:
    model = _model_at(location[:-1])
    known = sorted(field.alias or name for name, field in model.model_fields.items())
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"unknown field; {meant}known fields: {', '.join(known)}"


def _model_at(location: Location) -> type[BaseModel]:
    """The model of the object at `location` in the manifest."""
    model: type[BaseModel] = AuroraDeployment
    for key in location:
        if isinstance(key, str):
            for name, field in model.model_fields.items():
                if key == (field.alias or name):
                    model = _inner_model(field.annotation) or model
    return model


def _inner_model(annotation: object) -> type[BaseModel] | None:
    """The model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple):
        for argument in get_args(annotation):
            if (inner := _inner_model(argument)) is not None:
                return inner
    return None


def _path(location: Location) -> str:
    path = ""
    for key in location:
        path += f"[{key}]" if isinstance(key, int) else f".{key}"
    return path.removeprefix(".") or "the document"


def _shown(value: object) -> str:
    """A value as JSON, truncated to fit on a line."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
