import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.status import DRY_STATES, NOW, STATES, STATUSES, full_status

from aurora_operator.domain.plan.candidate_queue import SUPERSEDED_LIMIT
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Clock,
    Pending,
    Promoting,
    WaitingForTraffic,
)
from aurora_operator.domain.status.deployment import (
    HISTORY_LIMIT,
    Cursor,
    Queue,
    Status,
    Verdict,
)
from aurora_operator.domain.status.status_json import (
    STATUS,
    readable_part,
    status_from_json,
    status_to_json,
)


@pytest.mark.parametrize("state", [*STATES, *DRY_STATES])
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


@pytest.fixture
def stored():
    """STATUSES as operators wrote them before guardrails, crashes and deadlines of every state."""
    return json.loads(Path(__file__).with_name("stored.json").read_text())


_ONCE_KEPT = ("id", "checkpoint", "digest", "outcome", "reason", "effect_bps", "requests", "at")


def earlier(status):
    """What an operator of that time knew of it."""
    rollout = status.rollout
    if rollout is None:
        return status
    state = rollout.state
    if isinstance(state, Pending | WaitingForTraffic):
        state = replace(state, clock=None)
    if isinstance(state, Promoting):
        state = replace(state, since=None)
    evidence = replace(rollout.evidence, guardrails=(), crashes=0, path=None)
    cursors = {name: Cursor(each.instance, each.after) for name, each in rollout.cursors.items()}
    candidate = replace(rollout.candidate, held_out_bps=None)
    rollout = replace(rollout, candidate=candidate, state=state, evidence=evidence)
    rollout = replace(rollout, cursors=cursors, started_at=None)
    queue = replace(status.queue, waiting=candidate)
    status = replace(status, queue=queue)
    old = Verdict(*(getattr(status.history[0], name) for name in _ONCE_KEPT))
    return replace(status, rollout=rollout, history=(old,), retained=(), device=None)


def test_it_is_written_as_ever(stored):
    """Clients and stored statuses know these keys and texts."""
    written = [json.loads(status_to_json(earlier(status))) for status in STATUSES]
    for content in written:
        for added in ("attempts", "unrecorded", "unannounced", "retained"):
            content.pop(added)
        if "rollout" in content:
            for added in ("guardrails", "crashes", "promotingLogE", "promotionThreshold"):
                content["rollout"]["evidence"].pop(added)
            for added in ("method", "attempt", "dryRun"):
                content["rollout"]["plan"].pop(added)
            for added in ("clauses", "deadline"):
                content["rollout"].pop(added, None)
    assert written == stored


def test_what_an_earlier_operator_stored_is_read(stored):
    read = [status_from_json(json.dumps(content)) for content in stored]
    assert read == [earlier(status) for status in STATUSES]


def nodes(schema):
    yield schema
    for inner in (*schema.get("properties", {}).values(), schema.get("items")):
        if inner is not None:
            yield from nodes(inner)


def test_every_list_is_bounded_and_everything_described():
    for node in nodes(STATUS.schema):
        for name, field in node.get("properties", {}).items():
            assert field.get("description"), f"{node['title']}.{name}"
        assert node["type"] != "number"
        assert node["type"] != "array" or "maxItems" in node


def test_what_is_kept_fits_its_bounds():
    entry = full_status(Pending())
    digests = tuple(f"sha256:{number}" for number in range(SUPERSEDED_LIMIT))
    kept = replace(entry, history=entry.history * HISTORY_LIMIT, queue=Queue(4, None, digests))
    assert status_from_json(status_to_json(kept)) == kept


def test_a_full_history_is_small_beside_what_an_api_server_stores():
    """Of the 1.5 MiB that an object may have."""
    entry = full_status(Pending())
    without = len(json.dumps(STATUS.write(replace(entry, history=()))))
    full = len(json.dumps(STATUS.write(replace(entry, history=entry.history * HISTORY_LIMIT))))
    assert full - without < 32 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"surprise": 1}',
        '{"paused": "perhaps"}',
        '{"queue": {"sequence": true}}',
        '{"stable": {"checkpoint": "c", "digest": "d"}}',
        '{"stable": {"checkpoint": "c", "digest": "d", "uri": "u", "acceptanceBps": "1"}}',
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"status|Expecting"):
        status_from_json(text)


def test_an_error_names_the_field():
    content = json.loads(status_to_json(full_status(Analyzing(1, NOW, 12, Clock(NOW)))))
    content["rollout"]["evidence"]["logWealth"][2] = []
    with pytest.raises(ValueError, match=r"status.rollout.evidence.logWealth\[2\] is \[\]"):
        status_from_json(json.dumps(content))


def written(state):
    return json.loads(status_to_json(full_status(state)))


def test_of_a_later_operator_s_status_all_but_what_has_an_unknown_word_is_kept():
    """After a downgrade in the middle of a rollout the stable draft must go on serving."""
    status = full_status(Pending())
    content = written(Pending())
    content["rollout"]["evidence"]["method"] = "of-a-later-version/v9"
    content["conditions"][0]["type"] = "OfALaterVersion"
    content["stable"]["sizeBytes"] = 7
    content["ofALaterVersion"] = True
    assert readable_part(content) == replace(status, rollout=None, conditions=())


def test_evidence_with_an_unknown_field_is_not_read_in_part():
    content = written(Pending())
    content["rollout"]["plan"]["prior"] = "0.5"
    assert readable_part(content).rollout is None


def test_what_is_readable_is_read_as_ever():
    assert readable_part(written(Pending())) == full_status(Pending())
    assert readable_part({}) == Status()
