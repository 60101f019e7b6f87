"""How much is kept follows from Redis' storage and memory."""

import json

import pytest
from support.manifest import changed

from aurora_operator.domain.manifest.parser import deployment_from_object, parse_manifest


def buffer(content):
    document = json.dumps(changed("spec.buffer", content))
    return parse_manifest(document, "test").spec.buffer


@pytest.mark.parametrize(
    ("content", "retained"),
    [
        ({"embedded": {}}, 2 << 30),
        ({"embedded": {"storage": "1Gi"}}, (2 << 30) // 5),
        ({"embedded": {"storage": "2Gi", "resources": {"limits": {"cpu": 1}}}}, (4 << 30) // 5),
        ({"embedded": {"resources": {"limits": {"memory": "1Gi"}}}}, 1 << 29),
        ({"embedded": {"storage": "1Ti", "resources": {"limits": {"memory": 10}}}}, 5),
        ({"embedded": {"storage": "1"}}, 1),
        ({"embedded": {}, "retention": {"maxBytes": "1M"}}, 1_000_000),
        ({"external": {"url": "redis://redis"}}, 16 << 30),
        ({"external": {"url": "redis://redis"}, "retention": {"maxBytes": "1Ti"}}, 1 << 40),
    ],
)
def test_retained(content, retained):
    assert buffer(content).retained_bytes == retained


def test_what_was_stored_with_more_keeps_what_has_room():
    content = {"embedded": {"storage": "20Gi"}, "retention": {"maxBytes": "16Gi"}}
    stored = deployment_from_object(changed("spec.buffer", content)).spec.buffer
    assert stored.retained_bytes == 2 << 30
    assert "at most 40% of embedded.storage" in stored.excess
    assert buffer({"embedded": {}}).excess == ""
