"""Finds the AuroraDeployment in YAML or JSON that may hold several documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

KIND = "AuroraDeployment"
# Kubernetes' own limit for a custom resource is of this order.
_LIMIT_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """`content` is the parsed object; `problems` are errors in the text itself.

    `ignored`: the kinds of the other objects.
    """

    content: object
    problems: tuple[str, ...]
    ignored: tuple[str, ...] = ()


class _Loader(yaml.SafeLoader):
    """Reads a surrogate pair, as JSON escapes what is above U+FFFF, as its character."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if not isinstance(value, str) or value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_document(text: str) -> Document:
    """Loads the only object in `text`, or the only AuroraDeployment among several.

    As for kubectl, empty documents do not count, and a List stands for its items. Never raises for
    bad input.
    """
    if len(text) > _LIMIT_CHARACTERS:
        return Document(None, (f"is longer than {_LIMIT_CHARACTERS} characters",))
    try:
        loader = _Loader(_as_yaml(text))
        found: list[tuple[object, yaml.Node]] = []
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            found += ((each, node) for each in _objects(loader.construct_document(node)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return Document(None, (f"{place}not YAML: {error.problem}",))
    # A date like 2026-13-45 raises datetime's ValueError; forbidden characters a ReaderError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Document(None, (f"not YAML: {error}",))
    ignored: tuple[str, ...] = ()
    if len(found) > 1:
        chosen = [each for each in found if _kind(each[0]) == KIND]
        if len(chosen) != 1:
            kinds = Counter(_kind(content) or "no kind" for content, _ in found)
            listed = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
            return Document(
                None, (f"holds {len(found)} objects ({listed}); exactly one {KIND} is expected",)
            )
        ignored = tuple(_kind(content) for content, _ in found if _kind(content) != KIND)
        found = chosen
    if not found:
        return Document(None, (f"holds no document; one {KIND} is expected",))
    content, node = found[0]
    return Document(content, tuple(_duplicates(node, "", set())), ignored)


def _as_yaml(text: str) -> str:
    """JSON with what YAML forbids in it replaced; any other text as it is."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    # Outside of strings, where JSON allows none either.
    return text.replace("\t", " ")


def _objects(content: object) -> Iterator[object]:
    """A document's object, or the items if it is a List; none if it is empty."""
    items = content.get("items") if isinstance(content, dict) else None
    if _kind(content).endswith("List") and isinstance(items, list):
        yield from items
    elif content is not None:
        yield content


def _kind(content: object) -> str:
    return str(content.get("kind", "")) if isinstance(content, dict) else ""


def _duplicates(node: yaml.Node, path: str, seen: set[int]) -> list[str]:
    """One line for each key that appears more than once in a mapping under `node`."""
    # Aliases can revisit a node or form a cycle.
    if id(node) in seen:
        return []
    seen.add(id(node))
    problems: list[str] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            problems += _duplicates(item, f"{path}[{index}]", seen)
    elif isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            here = f"{path}.{name}" if path else name
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and first_lines.setdefault(name, line) != line:
                problems.append(
                    f"{here}: the key is set twice, on lines {first_lines[name]} and {line}"
                )
            problems += _duplicates(value, here, seen)
    return problems
