import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from aurora_operator.domain.deployment import (
    Candidate,
    Condition,
    Cursor,
    Draft,
    LastCommand,
    Queue,
    Rollout,
    Status,
    Verdict,
)
from aurora_operator.domain.evidence import Evidence, Outcome, observe
from aurora_operator.domain.plan import HISTORY_LIMIT
from aurora_operator.domain.queue import SUPERSEDED_LIMIT
from aurora_operator.domain.rollout import (
    Analyzing,
    Clock,
    Inconclusive,
    Pending,
    Promoted,
    Promoting,
    RolledBack,
    RolloutPlan,
    WaitingForTraffic,
)
from aurora_operator.domain.status_json import status_from_json, status_to_json
from aurora_operator.domain.status_schema import StatusJson

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
PLAN = RolloutPlan((5, 20), "0.01", 10, 300, 21_600.0)


def full(state):
    evidence = Evidence()
    for accepted in (1, 7, 3):
        evidence = observe(evidence, Outcome("candidate", 3333, 7, accepted))
        evidence = observe(evidence, Outcome("stable", 3333, 7, 2))
    draft = Draft("ckpt-1", "sha256:1", "file:///a")
    candidate = Candidate(draft, 1, "5-0")
    return Status(
        observed_generation=3,
        stable=Draft("ckpt-0", "sha256:0", "file:///b"),
        stable_acceptance_bps=6120,
        rollout=Rollout(
            "chat-1", candidate, PLAN, state, True, evidence, {"inference": Cursor("i", 9)}
        ),
        queue=Queue(4, candidate, ("sha256:2",)),
        paused=True,
        history=(Verdict("chat-0", "ckpt-0", "sha256:0", "Promoted", "x", -3, 12, NOW),),
        conditions=(Condition("Ready", True, "Serving", "", NOW, 3),),
        last_command=LastCommand("abort/chat-1", "Refused", "too late", NOW),
        replicas=3,
        ready_replicas=2,
        updated_replicas=1,
        selector="a=1,b=2",
    )


@pytest.mark.parametrize(
    "state",
    [
        Pending(),
        WaitingForTraffic(),
        Analyzing(1, NOW, 12, Clock(NOW, NOW, 0.1)),
        Analyzing(0, NOW, 0, Clock(NOW)),
        Promoting("x"),
        Promoted("x"),
        RolledBack("x"),
        Inconclusive("x"),
    ],
)
def test_reads_back_exactly(state):
    status = full(state)
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

    content = json.loads(status_to_json(full(Analyzing(1, NOW, 12, Clock(NOW, NOW, 0.5)))))
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
    entry = full(Pending())
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
