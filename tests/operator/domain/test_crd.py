"""The schema of the cluster says what the types say."""

import json
import re

import pytest
from hypothesis import given, settings
from support.generated import manifests

from aurora_operator.domain.crd import definition, structural_schema
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.manifest.spec import Spec

MINIMAL = {
    "target": {"uri": "file:///models/target"},
    "buffer": {"embedded": {}},
    "modelStore": {"pvc": {"claimName": "models"}},
}


def defaulted(value, schema):
    """What the API server makes of a value: defaults from the outermost object inwards."""
    if isinstance(value, dict) and "properties" in schema:
        for name, field in schema["properties"].items():
            if name not in value and "default" in field:
                value = {**value, name: field["default"]}
        return {
            name: defaulted(inner, schema["properties"].get(name, {}))
            for name, inner in value.items()
        }
    return value


def nodes(schema):
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from nodes(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key])


def test_the_defaults_are_those_of_the_types():
    deployment = parse_manifest(
        json.dumps(
            {
                "apiVersion": "aurora.dev/v1alpha1",
                "kind": "AuroraDeployment",
                "metadata": {"name": "chat"},
                "spec": MINIMAL,
            }
        ),
        "test",
    )
    wanted = json.loads(deployment.spec.model_dump_json(by_alias=True, exclude_none=True))
    found = defaulted(MINIMAL, structural_schema(Spec))

    def without_empty_maps(value):
        if not isinstance(value, dict):
            return value
        inner = {key: without_empty_maps(one) for key, one in value.items()}
        return {key: one for key, one in inner.items() if one != {}}

    assert without_empty_maps(found) == without_empty_maps(wanted)


@pytest.mark.parametrize("part", ["spec", "status"])
def test_the_schema_is_structural_and_knows_no_floats(part):
    version = definition()["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]["properties"][part]
    for node in nodes(root):
        assert "$ref" not in node
        assert "null" not in str(node.get("type"))
        assert node.get("type") != "number"
        assert "type" in node or node.get("x-kubernetes-int-or-string")
        if node.get("type") == "array":
            assert "maxItems" in node


def test_every_field_of_the_spec_is_explained():
    version = definition()["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for node in nodes(spec):
        for name, field in node.get("properties", {}).items():
            assert field.get("description"), name


def test_conditions_are_merged_by_their_type():
    version = definition()["spec"]["versions"][0]
    conditions = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"][
        "conditions"
    ]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@given(manifests())
@settings(max_examples=60, deadline=None)
def test_what_the_schema_takes_the_command_line_takes(manifest):
    parse_manifest(json.dumps(manifest), "generated")


def test_every_text_is_bounded_and_says_in_words_what_is_allowed():
    version = definition()["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for node in nodes(root):
        if "pattern" not in node:
            continue
        assert re.fullmatch(r"\^.*\$", node["pattern"])
        assert "maxLength" in node
        assert node["x-kubernetes-validations"][0]["message"].startswith("use ")


def test_an_object_without_defaults_stays_away():
    inference = structural_schema(Spec)["properties"]["inference"]
    assert inference["default"] == {}
    assert "default" not in inference["properties"]["podTemplate"]
    assert "default" not in inference["properties"]["resources"]


def test_whole_numbers_are_bounded():
    version = definition()["spec"]["versions"][0]
    for node in nodes(version["schema"]["openAPIV3Schema"]["properties"]["spec"]):
        if node.get("type") == "integer":
            assert {"minimum", "maximum"} <= node.keys()
            assert node["format"] == "int32"
