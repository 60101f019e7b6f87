"""YAML text into one plain document, with every duplicate key found."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

# Kubernetes' own limit for a custom resource is of this order.
_LIMIT_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """`content` is what the text says; `problems` what is wrong with it as YAML."""

    content: object
    problems: tuple[str, ...]


def load_document(text: str) -> Document:
    """Reads the one YAML (or JSON) document in `text`; never raises for bad text."""
    if len(text) > _LIMIT_CHARACTERS:
        return Document(None, (f"is longer than {_LIMIT_CHARACTERS} characters",))
    try:
        loader = yaml.SafeLoader(text)
        nodes: list[yaml.Node] = []
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            nodes.append(node)
        if len(nodes) != 1:
            found = "no document" if not nodes else f"{len(nodes)} documents"
            return Document(None, (f"holds {found}; one AuroraDeployment is expected",))
        problems = tuple(_duplicates(nodes[0], "", set()))
        return Document(loader.construct_document(nodes[0]), problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return Document(None, (f"{place}not YAML: {error.problem}",))
    # A date like 2026-13-45 is a ValueError of datetime's; characters YAML forbids a reader error.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Document(None, (f"not YAML: {error}",))


def _duplicates(node: yaml.Node, path: str, seen: set[int]) -> list[str]:
    """A line for each key that a mapping under `node` holds more than once."""
    # An alias leads to a node once more, or round in a circle.
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
