"""What a trainer's judge answers, as the scores that the plan counts."""

import pytest

from aurora.trainer.v1 import judge_pb2, judge_pb2_grpc
from aurora_common.errors import UnavailableError
from aurora_common.grpc_server import GrpcServer
from aurora_operator.adapters.channel import Peer
from aurora_operator.adapters.trainer import CheckpointFeed
from aurora_operator.domain.plan.observation import ReplayBatch
from aurora_operator.domain.rollout.replay import Score
from aurora_operator.domain.status.deployment import Draft
from aurora_operator.reconcile.fleet import Comparison

COMPARISON = Comparison(
    "chat-1",
    Draft("ckpt-1", "sha256:1", "file:///1"),
    Draft("ckpt-2", "sha256:2", "file:///2"),
    begin="6-0",
    after="7-0",
    greedy_drafts=True,
    speculation_length=4,
)


class Judge(judge_pb2_grpc.JudgeServicer):
    def __init__(self):
        self.asked = []

    async def ListScores(self, request, context):  # noqa: N802
        self.asked.append(request)
        score = judge_pb2.Score(
            id="8-0", domain="law", output_tokens=9, stable_steps=4.5, candidate_steps=4.25
        )
        return judge_pb2.ListScoresResponse(scores=[score], next_after="9-0", refusal="too big")


@pytest.fixture
async def served():
    judge = Judge()
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    server.add(judge_pb2_grpc.add_JudgeServicer_to_server, judge)
    port = await server.start([])
    feed = CheckpointFeed(Peer(f"127.0.0.1:{port}"), lambda: 0)
    yield feed, judge, server
    await feed.close()
    await server.stop()


async def test_scores_of_a_comparison(served):
    feed, judge, _ = served
    found = await feed.replay(COMPARISON)
    assert found == ReplayBatch("chat-1", (Score("8-0", "law", 9, 4.5, 4.25),), "9-0", "too big")
    (request,) = judge.asked
    assert request == judge_pb2.ListScoresRequest(
        stable=judge_pb2.JudgedDraft(digest="sha256:1", uri="file:///1"),
        candidate=judge_pb2.JudgedDraft(digest="sha256:2", uri="file:///2"),
        begin="6-0",
        after="7-0",
        greedy_drafts=True,
        speculation_length=4,
    )


async def test_a_trainer_that_is_away(served):
    feed, _, server = served
    await server.stop()
    with pytest.raises(UnavailableError, match="trainer: "):
        await feed.replay(COMPARISON)
