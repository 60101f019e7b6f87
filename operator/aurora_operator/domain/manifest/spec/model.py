"""What every object of a manifest is, and how one says what is wrong with it as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from aurora_operator.domain.manifest.field_type import Rule, rule

# An error of the list as a whole: its context holds (index, text) for each element.
STEPS_PROBLEM = "aurora_steps"
# An error found at one field that belongs to the object around it.
PARENT_PROBLEM = "aurora_parent"


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
    """What the API server is to check of an object as a whole."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": [dict(one) for one in rules]})


def immutable(*fields: str) -> Sequence[Rule]:
    """Rules by which these fields of an object stay what they were; each must have a value."""
    return [rule(f"self.{name} == oldSelf.{name}", f"{name} is immutable", name) for name in fields]


def parent_problem(text: str) -> PydanticCustomError:
    """The error of a field's validator that is told of the object around the field."""
    return PydanticCustomError(PARENT_PROBLEM, "{text}", {"text": text})
