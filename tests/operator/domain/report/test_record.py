"""What is kept of an ended rollout."""

import json
from dataclasses import replace

import pytest
from support.manifest import changed
from support.status import NOW, full_status

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.report.record import record_content, record_name
from aurora_operator.domain.report.report import report_of
from aurora_operator.domain.rollout.replay import Replay, Score, replayed
from aurora_operator.domain.rollout.state import Analyzing, Clock, Promoted
from aurora_operator.domain.status.deployment import Draft, Verdict, Watch

DIGEST = "sha256:" + "ab" * 32
DEPLOYMENT = parse_manifest(json.dumps(changed("spec.rollout.steps", [{"weightPercent": 7}])), "x")
FORMER = Draft("ckpt-0", "sha256:0", "file:///b")


@pytest.fixture
def ended():
    """Statuses before and after a promotion, with a replay in the evidence."""
    before = full_status(Analyzing(1, NOW, 12, Clock(NOW)))
    replay = Replay("5-0")
    for number in range(6, 12):
        replay = replayed(replay, Score(f"{number}-0", "law", 50, 20.0, 18.0))
    evidence = replace(before.rollout.evidence, replay=replay)
    rollout = replace(before.rollout, id="chat-7", evidence=evidence)
    verdict = Verdict("chat-7", "ckpt-7", DIGEST, "Promoted", "ReplayBetter", 3, 12, NOW)
    before = replace(before, rollout=rollout, stable=FORMER)
    after = replace(
        before,
        rollout=replace(rollout, state=Promoted("ReplayBetter")),
        stable=rollout.candidate.draft,
        history=(verdict, *before.history),
    )
    return before, after


def record(before, after, number=0):
    report = report_of(DEPLOYMENT, 3, after.history[number], before=before, after=after)
    assert record_content(report) == record_content(report)
    return json.loads(record_content(report)), report


def test_it_has_all_that_the_verdict_rests_on(ended):
    found, report = record(*ended)
    assert (found["apiVersion"], found["kind"]) == ("aurora.dev/v1alpha1", "RolloutRecord")
    assert found["metadata"] == {
        "name": "7-abababababab",
        "namespace": "default",
        "deployment": "chat",
        "generation": 3,
    }
    assert found["verdict"]["reason"] == "ReplayBetter"
    assert found["stable"]["checkpoint"] == "ckpt-0"
    assert found["spec"]["steps"] == [{"weightPercent": 7}]
    rollout = found["rollout"]
    assert rollout["plan"]["alpha"] == "0.01"
    assert rollout["startedAt"] == found["verdict"]["at"] == "2026-01-02T03:04:05.678901Z"
    evidence = rollout["evidence"]
    assert evidence["threshold"] == "4.6052"
    assert evidence["guardrails"][0]["name"] == "tpot"
    assert evidence["replay"]["ciBps"][0] <= evidence["replay"]["savedBps"]
    assert len(evidence["replay"]["path"]["logE"]) == 6
    assert evidence["replay"]["classes"][0]["name"]
    assert rollout["clauses"][0]["name"] == "Better"
    assert evidence["cursors"] == []
    assert record_name(report) == "7-abababababab"


def test_of_what_is_gone_the_history_is_kept(ended):
    _, after = ended
    later = replace(after, rollout=replace(after.rollout, id="chat-8"))
    found, _ = record(None, later)
    assert found["verdict"]["outcome"] == "Promoted"
    assert not {"rollout", "stable", "watch"} & found.keys()


def test_a_promotion_that_is_taken_back_has_a_record_of_its_own(ended):
    _, promoted = ended
    watch = Watch("chat-7", FORMER, "0.01", NOW, Replay("5-0", 9), NOW)
    before = replace(promoted, watch=watch)
    taken_back = Verdict("chat-7-watch", "ckpt-7", DIGEST, "RolledBack", "WatchHarm: x", 0, 0, NOW)
    after = replace(promoted, stable=FORMER, history=(taken_back, *promoted.history))
    found, report = record(before, after)
    assert record_name(report) == "7-abababababab-watch"
    assert found["stable"]["checkpoint"] == found["watch"]["former"]["checkpoint"] == "ckpt-0"
    assert found["watch"]["replay"]["requests"] == 9
    assert "rollout" not in found


def test_a_deployments_name_may_end_in_a_number(ended):
    before, after = ended
    verdict = replace(after.history[0], id="chat-2-7")
    named = DEPLOYMENT.model_copy(
        update={"metadata": DEPLOYMENT.metadata.model_copy(update={"name": "chat-2"})}
    )
    report = report_of(named, 1, verdict, before=before, after=after)
    assert record_name(report) == "7-abababababab"
