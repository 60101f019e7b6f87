"""Dataclasses as JSON: the type alone says how it is written, read and described.

A key is the field's name in camelCase. A float is decimal text that reads back exactly, a datetime
RFC 3339 in UTC; None is left out. A mapping is a list whose entries hold their key. `Annotated`
adds what a type cannot say: a string describes the field, `Wire` says how it is written. A
property with a description is written for people and ignored when read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from aurora_common.codec.value import Codec, Schema, Wire, listed, mapping, scalar, text

T = TypeVar("T")


def codec(cls: type[T], *, strict: bool = True) -> Codec[T]:
    """The codec of a dataclass; `strict` refuses unknown keys, which are ignored otherwise."""
    return _object(cls, frozenset(), strict=strict)


@dataclass(frozen=True, slots=True)
class _Member:
    """A field, or a described property, which has no `field`."""

    name: str
    key: str
    wire: Wire
    is_optional: bool
    field: Field[Any] | None
    codec: Codec[Any]

    def read(self, content: Mapping[str, object], path: str) -> object:
        if self.wire.inline:
            return self.codec.read(content, path)
        if self.wire.within:
            path = f"{path}.{self.wire.within}"
            around = content.get(self.wire.within)
            content = mapping({} if around is None else around, path)
        value = content.get(self.key)
        if value is not None:
            return self.codec.read(value, f"{path}.{self.key}")
        if not self.has_default:
            raise ValueError(f"{path}.{self.key} is missing")
        return self.default

    @property
    def has_default(self) -> bool:
        if self.wire.required or self.field is None:
            return False
        return self.is_optional or self.default is not MISSING

    @property
    def default(self) -> object:
        assert self.field is not None
        if self.field.default_factory is not MISSING:
            return self.field.default_factory()
        return None if self.is_optional else self.field.default


def _object(cls: type[T], foreign: frozenset[str], *, strict: bool) -> Codec[T]:
    """`foreign`: keys in the object that are not the dataclass's own."""
    members = list(_members(cls, strict=strict))
    # What stands within a sibling is written after it.
    members.sort(key=lambda member: bool(member.wire.within))
    properties = _properties(members)
    known = foreign | properties.keys()
    stored = [member for member in members if member.field is not None]

    def write(value: T) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for member in members:
            if (inner := getattr(value, member.name)) is None:
                continue
            if member.wire.inline:
                content |= member.codec.write(inner)
            elif not member.wire.within:
                content[member.key] = member.codec.write(inner)
            elif member.wire.within in content:
                content[member.wire.within][member.key] = member.codec.write(inner)
        return content

    def read(value: object, path: str) -> T:
        content = mapping(value, path)
        if strict and (unknown := content.keys() - known):
            raise ValueError(f"{path}.{min(unknown)} is unknown")
        return cls(**{member.name: member.read(content, path) for member in stored})

    about = (cls.__doc__ or "").partition("\n\n")[0]
    # A field's own description replaces the class's; the comment stays.
    schema = {"title": cls.__name__, "$comment": about, "description": about}
    return Codec({"type": "object", **schema, "properties": properties}, write, read)


def _properties(members: list[_Member]) -> Schema:
    properties: Schema = {}
    for member in members:
        if member.wire.inline:
            properties |= member.codec.schema["properties"]
        elif member.wire.within:
            around = properties.setdefault(member.wire.within, {"properties": {}})
            around["properties"][member.key] = member.codec.schema
        else:
            properties[member.key] = member.codec.schema
    return properties


def _members(cls: type[object], *, strict: bool) -> Iterator[_Member]:
    """The described properties, which people read first, then the fields."""
    assert is_dataclass(cls)
    hints = get_type_hints(cls, include_extras=True)
    declared: dict[str, tuple[Any, Field[Any] | None]] = {}
    for name, attribute in vars(cls).items():
        if isinstance(attribute, property):
            hint = get_type_hints(attribute.fget, include_extras=True)["return"]
            if get_origin(hint) is Annotated:
                declared[name] = hint, None
    declared |= {field.name: (hints[field.name], field) for field in fields(cls)}
    parts = {name: _parts(hint) for name, (hint, _) in declared.items()}
    for name, (kind, wire, description) in parts.items():
        key = wire.key or _camel_case(name)
        foreign = {
            other.key or _camel_case(its)
            for its, (_, other, _) in parts.items()
            if other.within == key
        }
        inner = _codec(kind, wire, key, frozenset(foreign), strict=strict and not wire.inline)
        is_optional = NoneType in get_args(kind)
        member = _Member(name, key, wire, is_optional, declared[name][1], inner)
        _describe(inner.schema, member, description)
        yield member


def _describe(schema: Schema, member: _Member, description: str) -> None:
    if member.wire.inline:
        schema = schema["properties"].get(member.key, {})
    if description:
        schema["description"] = description
    if member.is_optional:
        schema["nullable"] = True
    elif member.has_default:
        schema["default"] = member.codec.write(member.default)


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _parts(hint: Any) -> tuple[Any, Wire, str]:
    """A hint's type, how it is written, and its description."""
    if get_origin(hint) is not Annotated:
        return hint, Wire(), ""
    kind, *extras = get_args(hint)
    wire = next((extra for extra in extras if isinstance(extra, Wire)), Wire())
    return kind, wire, next((extra for extra in extras if isinstance(extra, str)), "")


def _codec(kind: Any, wire: Wire, key: str, foreign: frozenset[str], *, strict: bool) -> Codec[Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    match [one for one in arguments if one is not NoneType]:
        case [only] if NoneType in arguments:
            return _codec(only, wire, key, foreign, strict=strict)
        case _ if origin is Literal:
            return text({text: text for text in arguments})
        case [item, *more] if origin is tuple:
            length = None if Ellipsis in more else len(arguments)
            return listed(_codec(item, Wire(), "", foreign, strict=strict), wire, length)
        case [name, entry] if origin is Mapping:
            return _entries(name, entry, wire, strict=strict)
        case [_, *_] as variants:
            return _union(variants, key)
    if isinstance(kind, type) and is_dataclass(kind):
        return _object(kind, foreign, strict=strict)
    if wire.quoted:
        return text({"True": True, "False": False})
    return scalar(kind, wire)


def _union(classes: list[Any], tag: str) -> Codec[Any]:
    """A union of dataclasses: the class's name under `tag`, beside the fields of the class."""
    variants = {cls.__name__: _object(cls, frozenset(), strict=False) for cls in classes}
    name = text({known: known for known in variants})
    properties = {tag: name.schema}
    for variant in variants.values():
        for key, schema in variant.schema["properties"].items():
            properties[key] = {**schema, "nullable": True}

    def write(value: object) -> dict[str, Any]:
        kind = type(value).__name__
        return {tag: kind, **variants[kind].write(value)}

    def read(content: Any, path: str) -> object:
        return variants[name.read(content.get(tag), f"{path}.{tag}")].read(content, path)

    return Codec({"properties": properties}, write, read)


def _entries(name_hint: Any, cls: Any, wire: Wire, *, strict: bool) -> Codec[Any]:
    """A mapping as the list of its values by name, each with its name as `name_hint` writes it."""
    kind, name_wire, description = _parts(name_hint)
    key, name = name_wire.key, scalar(kind, name_wire)
    inner = _object(cls, frozenset({key}), strict=strict)
    own = {key: {**name.schema, "description": description}}
    inner.schema["properties"] = own | inner.schema["properties"]
    entries = listed(inner, wire, None)

    def write(value: Mapping[str, Any]) -> list[Any]:
        return [{key: entry, **inner.write(value[entry])} for entry in sorted(value)]

    def read(value: Any, path: str) -> dict[Any, Any]:
        found = entries.read(value, path)
        return {
            name.read(item.get(key), f"{path}.{key}"): entry
            for item, entry in zip(value, found, strict=True)
        }

    return Codec(entries.schema, write, read)
