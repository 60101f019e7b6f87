"""How single values and lists of them are written as JSON, read and described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wire:
    """How a field is written if its name and type do not say.

    `key` replaces its name. `within`: it stands in the object under that key, if there is one.
    `inline`: its fields stand in the object around it. `required`: a reader insists on it although
    the dataclass has a default. `digits` rounds a float. `quoted`: a bool is written as text.
    """

    key: str = ""
    within: str = ""
    inline: bool = False
    required: bool = False
    quoted: bool = False
    digits: int | None = None
    max_items: int | None = None


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """`read` raises ValueError naming the path of what it refuses; `schema` is a JSON schema."""

    schema: Schema
    write: Callable[[T], Any]
    read: Callable[[object, str], T]


def listed(inner: Codec[Any], wire: Wire, length: int | None) -> Codec[Any]:
    bounds = {"minItems": length, "maxItems": wire.max_items if length is None else length}

    def read(value: object, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or length not in (None, len(value)):
            raise _unexpected(value, path, "a list" if length is None else f"a list of {length}")
        return tuple(inner.read(item, f"{path}[{index}]") for index, item in enumerate(value))

    schema = {name: bound for name, bound in bounds.items() if bound is not None}
    return Codec(
        {"type": "array", "items": inner.schema, **schema},
        lambda value: [inner.write(item) for item in value],
        read,
    )


def text(values: Mapping[str, object]) -> Codec[Any]:
    """A few texts, each of which stands for a value."""
    texts = {value: text for text, value in values.items()}

    def read(value: object, path: str) -> object:
        if not isinstance(value, str) or value not in values:
            raise _unexpected(value, path, " or ".join(values))
        return values[value]

    return Codec({"type": "string", "enum": list(values)}, texts.__getitem__, read)


def scalar(kind: type, wire: Wire) -> Codec[Any]:
    if kind is float:
        digits = wire.digits
        return Codec(
            {"type": "string", "format": "decimal"},
            lambda value: repr(float(value) if digits is None else round(value, digits)),
            _decimal,
        )
    if kind is datetime:
        return Codec({"type": "string", "format": "date-time"}, _rfc3339, _moment)
    name, expected = _NAMES[kind]

    def read(value: object, path: str) -> object:
        if type(value) is not kind:
            raise _unexpected(value, path, expected)
        return value

    return Codec({"type": name}, lambda value: value, read)


_NAMES: Mapping[type, tuple[str, str]] = {
    str: ("string", "a string"),
    int: ("integer", "a whole number"),
    bool: ("boolean", "true or false"),
}


def mapping(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _unexpected(value, path, "an object")
    return value


def _unexpected(value: object, path: str, expected: str) -> ValueError:
    return ValueError(f"{path} is {value!r}; expected {expected}")


def _decimal(value: object, path: str) -> float:
    try:
        if isinstance(value, str | int | float):
            return float(value)
    except ValueError:
        pass
    raise _unexpected(value, path, "a decimal")


def _moment(value: object, path: str) -> datetime:
    try:
        if isinstance(value, str) and (moment := datetime.fromisoformat(value)).tzinfo is not None:
            return moment
    except ValueError:
        pass
    raise _unexpected(value, path, "a time in RFC 3339")


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
