"""The judge in a trainer's process, in front of a real buffer and a real Redis."""

from __future__ import annotations

import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurora.trainer.v1 import judge_pb2

pytestmark = pytest.mark.redis

SECONDS = 60.0


@pytest.fixture
def ask(world, judge_drafts):
    """ask(after="", candidate=None, …): what the judge says of `random` and it, else `perfect`."""
    stable, perfect = (
        judge_pb2.JudgedDraft(digest=judge_drafts[name].digest, uri=judge_drafts[name].uri)
        for name in ("random", "perfect")
    )

    def call(after="", *, candidate=None, limit=0):
        request = judge_pb2.ListScoresRequest(
            stable=stable, candidate=candidate or perfect, after=after, limit=limit
        )
        return world.judge_stub.ListScores(request, timeout=SECONDS)

    return call


def test_the_same_scores_come_from_a_killed_judge(world, ask, judge_drafts, make_drafted):
    world.start_buffer()
    world.start_trainer()
    records = make_drafted(12)
    records[3].draft_digest = judge_drafts["perfect"].digest
    world.append(records)
    last_id = world.last_id()
    world.until(lambda: ask().next_after == last_id, "everything was read")
    everything = list(ask().scores)
    assert len(everything) == 11
    assert all(0 < score.candidate_steps < score.stable_steps <= 20 for score in everything)
    page = ask(limit=5)
    assert list(page.scores) == everything[:5]
    world.until(lambda: world.status().trajectories == 12, "the trainer has its own share")
    metrics = f"http://127.0.0.1:{world.metrics_port}/metrics"
    with urllib.request.urlopen(metrics) as answer:
        text = answer.read().decode()
    assert "aurora_trainer_judged_requests_total 11.0" in text
    assert 'aurora_trainer_unjudged_requests_total{reason="candidate_served"} 1.0' in text
    world.trainer.kill()
    world.start_trainer()
    world.until(lambda: ask(page.next_after).next_after == last_id, "the rest was read")
    assert list(ask(page.next_after).scores) == everything[5:]
    assert world.trainer.terminate() == 0
    assert world.pending_and_lag() == (0, 0)
    assert "Traceback" not in world.trainer.log


def test_it_outlives_the_buffer(world, ask, make_drafted):
    world.start_trainer()
    assert ask().next_after == ""
    world.until(
        lambda: "cannot read from the buffer for the judge" in world.trainer.log, "it is said"
    )
    world.start_buffer()
    world.append(make_drafted(4))
    world.until(lambda: len(ask().scores) == 4, "four are judged")
    world.buffer.kill()
    world.start_buffer()
    world.append(make_drafted(4, seed=1))
    world.until(lambda: len(ask().scores) == 8, "eight are judged")
    assert world.trainer.terminate() == 0
    assert "Traceback" not in world.trainer.log


def test_what_it_refuses_is_answered(world, ask, judge_drafts):
    world.start_buffer()
    world.start_trainer()
    health = health_pb2_grpc.HealthStub(world.trainer_channel).Check(
        health_pb2.HealthCheckRequest(service="aurora.trainer.v1.Judge"), timeout=SECONDS
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        ask("yesterday")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "after is 'yesterday'" in refused.value.details()
    elsewhere = judge_pb2.JudgedDraft(
        digest=judge_drafts["perfect"].digest, uri="file:///nowhere/perfect"
    )

    def cause():
        try:
            ask(candidate=elsewhere)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return ""

    world.until(lambda: "UNAVAILABLE: draft checkpoint perfect is refused" in cause(), "it is said")
    assert world.trainer.terminate() == 0
    assert "Traceback" not in world.trainer.log
