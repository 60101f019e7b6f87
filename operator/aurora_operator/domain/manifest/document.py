"""Loads one YAML document and finds duplicate keys."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

# Kubernetes' own limit for a custom resource is of this order.
_LIMIT_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """`content` is the parsed document; `problems` are errors in the YAML itself."""

    content: object
    problems: tuple[str, ...]


def load_document(text: str) -> Document:
    """Loads the single YAML (or JSON) document in `text`; never raises for bad input."""
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
    # A date like 2026-13-45 raises datetime's ValueError; forbidden characters a ReaderError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Document(None, (f"not YAML: {error}",))


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
