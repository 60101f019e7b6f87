"""The base of every object in a manifest, and errors about an object as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from aurora_operator.domain.manifest.field_type import Rule, rule

# An error about a list; its context holds (index, text) for each bad element.
STEPS_PROBLEM = "aurora_steps"
# An error found while validating a field that concerns its parent object.
PARENT_PROBLEM = "aurora_parent"
# The context of validating an object that an earlier version may have admitted.
STORED = "stored"
# An error about a field of the object that is validated.
INNER_PROBLEM = "aurora_inner"


class Model(BaseModel):
    """One object of the manifest: frozen, camelCase, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
        use_attribute_docstrings=True,
    )


def with_rules(*rules: Rule) -> ConfigDict:
    """CEL rules for an object as a whole."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": [dict(one) for one in rules]})


def immutable(*fields: str) -> Sequence[Rule]:
    """Rules that keep these fields unchanged; each must always have a value."""
    return [rule(f"self.{name} == oldSelf.{name}", f"{name} is immutable", name) for name in fields]


def parent_problem(text: str) -> PydanticCustomError:
    """An error to raise in a field's validator that is reported at its parent object."""
    return PydanticCustomError(PARENT_PROBLEM, "{text}", {"text": text})


def inner_problem(field: str, text: str) -> PydanticCustomError:
    """An error to raise in an object's validator that is reported at one of its fields."""
    return PydanticCustomError(INNER_PROBLEM, "{text}", {"field": field, "text": text})
