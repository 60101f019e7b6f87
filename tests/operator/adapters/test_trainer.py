"""What a trainer's judge answers, as the scores that the plan counts."""

import asyncio
from datetime import UTC, datetime

import pytest

from aurora.trainer.v1 import judge_pb2, judge_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_common.grpc_server import GrpcServer
from aurora_operator.adapters.channel import Peer
from aurora_operator.adapters.trainer import CheckpointFeed
from aurora_operator.domain.plan.housekeeping import Housekeeping
from aurora_operator.domain.plan.observation import ReplayBatch, Restorable
from aurora_operator.domain.rollout.parity import Agreement
from aurora_operator.domain.rollout.replay import Score
from aurora_operator.domain.status.deployment import Candidate, Draft, Verdict
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


class Trainer(trainer_pb2_grpc.TrainerServicer):
    def __init__(self):
        self.told = []

    async def PruneCheckpoints(self, request, context):  # noqa: N802
        self.told.append(request)
        return trainer_pb2.PruneCheckpointsResponse()

    async def WatchStatus(self, request, context):  # noqa: N802
        yield trainer_pb2.GetStatusResponse(phase="Training", withheld="too little is accepted")
        await asyncio.Event().wait()


PUBLISHED = trainer_pb2.Checkpoint(
    sequence=3,
    name="ckpt-3",
    digest="sha256:3",
    uri="file:///3",
    trained_through="8-0",
    acceptance=0.8125,
)


class Judge(judge_pb2_grpc.JudgeServicer):
    def __init__(self):
        self.asked = []
        self.trainer = Trainer()

    async def ListScores(self, request, context):  # noqa: N802
        self.asked.append(request)
        score = judge_pb2.Score(
            id="8-0", domain="law", output_tokens=9, stable_steps=4.5, candidate_steps=4.25
        )
        agreement = judge_pb2.Agreement(
            digest="sha256:1",
            requests=2,
            tested_tokens=9,
            accepted_tokens=3,
            predicted_tokens=4.5,
            variance=2.0,
        )
        return judge_pb2.ListScoresResponse(
            scores=[score], next_after="9-0", refusal="too big", agreements=[agreement]
        )


class Archive(trainer_pb2_grpc.TrainerServicer):
    """Keeps records, which the other one is too old for."""

    kept = ()

    async def KeepRolloutRecord(self, request, context):  # noqa: N802
        if not request.name:
            raise InvalidInputError("'' is no record's name")
        self.kept = (*self.kept, (request.name, request.content))
        return trainer_pb2.KeepRolloutRecordResponse()


@pytest.fixture
async def served():
    judge = Judge()
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    server.add(judge_pb2_grpc.add_JudgeServicer_to_server, judge)
    server.add(trainer_pb2_grpc.add_TrainerServicer_to_server, judge.trainer)
    port = await server.start([])
    feed = CheckpointFeed(Peer(f"127.0.0.1:{port}"), lambda: 0)
    yield feed, judge, server
    await feed.close()
    await server.stop()


async def test_scores_of_a_comparison(served):
    feed, judge, _ = served
    found = await feed.replay(COMPARISON)
    assert found == ReplayBatch(
        "chat-1",
        (Score("8-0", "law", 9, 4.5, 4.25),),
        "9-0",
        "too big",
        (Agreement("sha256:1", 2, 9, 3, 4.5, 2.0),),
    )
    (request,) = judge.asked
    assert request == judge_pb2.ListScoresRequest(
        stable=judge_pb2.JudgedDraft(digest="sha256:1", uri="file:///1"),
        candidate=judge_pb2.JudgedDraft(digest="sha256:2", uri="file:///2"),
        begin="6-0",
        after="7-0",
        greedy_drafts=True,
        speculation_length=4,
    )


async def test_a_trainer_is_told_what_is_stable_and_how_rollouts_ended(served):
    feed, judge, _ = served
    at = datetime(2026, 1, 1, tzinfo=UTC)
    rolled_back = Verdict(
        "chat-2", "ckpt-2", "sha256:2", "RolledBack", "CrashHarm", -20, 300, at, saved_bps=-5
    )
    promoted = Verdict("chat-1", "ckpt-1", "sha256:1", "Promoted", "AcceptanceBetter", 90, 400, at)
    verdicts = (rolled_back, promoted)
    needed = frozenset({"sha256:2"})
    await feed.prune(Housekeeping(3, needed, 2, COMPARISON.stable, verdicts, attempts=4))
    await feed.prune(Housekeeping(3, frozenset(), 2, None, (), attempts=0))
    first, second = judge.trainer.told
    at_ms = 1_767_225_600_000
    assert first == trainer_pb2.PruneCheckpointsRequest(
        keep=3,
        needed_digests=["sha256:2"],
        seen_sequence=2,
        stable_digest="sha256:1",
        stable_uri="file:///1",
        record_stable=True,
        attempts=4,
        verdicts=[
            trainer_pb2.Verdict(
                rollout_id="chat-1",
                digest="sha256:1",
                outcome="Promoted",
                reason="AcceptanceBetter",
                effect_bps=90,
                at_ms=at_ms,
            ),
            trainer_pb2.Verdict(
                rollout_id="chat-2",
                digest="sha256:2",
                outcome="RolledBack",
                reason="CrashHarm",
                effect_bps=-20,
                saved_bps=-5,
                at_ms=at_ms,
            ),
        ],
    )
    assert second == trainer_pb2.PruneCheckpointsRequest(keep=3, seen_sequence=2)


async def test_a_trainer_says_why_it_published_nothing(served):
    feed, _, _ = served
    view = await anext(aiter(feed.views()))
    assert (view.phase, view.withheld) == ("Training", "too little is accepted")


class Publisher(trainer_pb2_grpc.TrainerServicer):
    """Publishes one draft, and says what can be restored as soon as it is asked to."""

    def __init__(self):
        self.tells = asyncio.Event()

    async def WatchCheckpoints(self, request, context):  # noqa: N802
        yield PUBLISHED
        await asyncio.Event().wait()

    async def WatchStatus(self, request, context):  # noqa: N802
        await self.tells.wait()
        yield trainer_pb2.GetStatusResponse(
            phase="Training",
            restorable=trainer_pb2.Restorable(draft=PUBLISHED, seen_sequence=4, attempts=2),
        )
        await asyncio.Event().wait()


@pytest.fixture
async def followed():
    trainer = Publisher()
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    server.add(trainer_pb2_grpc.add_TrainerServicer_to_server, trainer)
    port = await server.start([])
    feed = CheckpointFeed(Peer(f"127.0.0.1:{port}"), lambda: 0)
    yield feed, trainer
    await feed.close()
    await server.stop()


async def test_what_can_be_restored_comes_before_what_can_be_tried(followed):
    feed, trainer = followed
    told = []

    async def one_view():
        view = await anext(views)
        told.append(view.restorable)
        # As one who follows them asks for the next.
        await anext(views)

    async def one_checkpoint():
        told.append(await anext(feed.checkpoints()))

    views = feed.views()
    checkpoint = asyncio.create_task(one_checkpoint())
    following = asyncio.create_task(one_view())
    trainer.tells.set()
    async with asyncio.timeout(20):
        await checkpoint
    following.cancel()
    candidate = Candidate(Draft("ckpt-3", "sha256:3", "file:///3"), 3, "8-0", 8125)
    assert told == [Restorable(candidate, seen_sequence=4, attempts=2), candidate]


async def test_a_trainer_that_is_away(served):
    feed, _, server = served
    await server.stop()
    with pytest.raises(UnavailableError, match="trainer: "):
        await feed.replay(COMPARISON)


@pytest.fixture
async def keeping():
    """A feed of a trainer that keeps records, and the trainer."""
    trainer = Archive()
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    server.add(trainer_pb2_grpc.add_TrainerServicer_to_server, trainer)
    feed = CheckpointFeed(Peer(f"127.0.0.1:{await server.start([])}"), lambda: 0)
    yield feed, trainer, server
    await feed.close()
    await server.stop()


async def test_a_record_is_kept_or_refused_for_good(keeping):
    feed, trainer, _ = keeping
    await feed.keep_record("7-0123456789ab", b"{}")
    assert trainer.kept == (("7-0123456789ab", b"{}"),)
    with pytest.raises(InvalidInputError, match="trainer: '' is no record's name"):
        await feed.keep_record("", b"{}")


async def test_an_older_trainer_keeps_no_records():
    """It has no such method."""
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    server.add(judge_pb2_grpc.add_JudgeServicer_to_server, Judge())
    port = await server.start([])
    feed = CheckpointFeed(Peer(f"127.0.0.1:{port}"), lambda: 0)
    with pytest.raises(InvalidInputError, match="trainer: "):
        await feed.keep_record("7-0123456789ab", b"{}")
    await feed.close()
    await server.stop()


async def test_a_trainer_that_is_away_is_asked_again(keeping):
    feed, _, server = keeping
    await server.stop()
    with pytest.raises(UnavailableError, match="trainer: "):
        await feed.keep_record("7-0123456789ab", b"{}")
