import json
from dataclasses import replace

import pytest
from support.status import NOW, STATES, full_status

from aurora_operator.domain.plan.candidate_queue import SUPERSEDED_LIMIT
from aurora_operator.domain.plan.plan import HISTORY_LIMIT
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Clock,
    Pending,
)
from aurora_operator.domain.status.deployment import (
    Queue,
    Status,
)
from aurora_operator.domain.status.status_json import status_from_json, status_to_json
from aurora_operator.domain.status.status_schema import StatusJson


@pytest.mark.parametrize("state", STATES)
def test_reads_back_exactly(state):
    status = full_status(state)
    assert status_from_json(status_to_json(status)) == status


def test_an_empty_status_reads_back():
    assert status_from_json(status_to_json(Status())) == Status()


def test_no_float_is_written():
    def floats(value):
        if isinstance(value, dict):
            return any(floats(inner) for inner in value.values())
        if isinstance(value, list):
            return any(floats(inner) for inner in value)
        return isinstance(value, float)

    content = json.loads(status_to_json(full_status(Analyzing(1, NOW, 12, Clock(NOW, NOW, 0.5)))))
    assert not floats(content)
    assert content["rollout"]["evidence"]["threshold"] == "4.6052"
    assert content["rollout"]["stepEnteredAt"] == "2026-01-02T03:04:05.678901Z"


def objects(schema):
    """The schema of every object in it."""
    return [schema, *schema.get("$defs", {}).values()]


def test_every_list_is_bounded_and_everything_described():
    schema = StatusJson.model_json_schema(by_alias=True, mode="serialization")
    for found in objects(schema):
        assert found["description"], found["title"]
        for name, field in found["properties"].items():
            assert field.get("description"), f"{found['title']}.{name}"
            shapes = [field, *field.get("anyOf", ())]
            for shape in shapes:
                assert shape.get("type") != "number"
                assert shape.get("type") != "array" or "maxItems" in shape


def test_what_is_kept_fits_its_bounds():
    entry = full_status(Pending())
    digests = tuple(f"sha256:{number}" for number in range(SUPERSEDED_LIMIT))
    kept = replace(entry, history=entry.history * HISTORY_LIMIT, queue=Queue(4, None, digests))
    assert status_from_json(status_to_json(kept)) == kept


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"surprise": 1}', '{"paused": "perhaps"}'],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="validation error"):
        status_from_json(text)
