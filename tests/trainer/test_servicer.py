import asyncio
import dataclasses
import json

import pytest

from aurora.trainer.v1 import trainer_pb2
from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_model.config import parse_config
from aurora_model.draft import publish_draft, random_draft, small_draft_config
from aurora_trainer.control.control import Control
from aurora_trainer.control.plateau import Plateau
from aurora_trainer.progress import Progress, Trigger
from aurora_trainer.servicer import TrainerServicer
from aurora_trainer.standing import Pace, Standing
from aurora_trainer.verdict import StableDraft, Verdict

TRIGGER = Trigger(min_new_trajectories=48, min_interval_seconds=0)


@pytest.fixture
def published(tmp_path, target_folder, identity):
    """Five checkpoints in a folder: their digests, oldest first."""
    content = json.loads((target_folder / "config.json").read_text())
    config = small_draft_config(parse_config(content, source="test"))
    return [
        publish_draft(
            random_draft(config, sequence), tmp_path, name=f"ckpt-{sequence}", target=identity
        )[1].digest
        for sequence in range(1, 6)
    ]


def nothing(_):
    """Is done with what is heard."""


def serving(
    models,
    standing=lambda: None,
    *,
    problem=str,
    on_stable=nothing,
    on_verdicts=nothing,
    is_target=lambda digest: True,
):
    return TrainerServicer(
        models,
        standing,
        TRIGGER,
        steps_per_round=60,
        pace=lambda: Pace(10, 0.04, 3.0),
        problem=problem,
        on_stable=on_stable,
        on_verdicts=on_verdicts,
        is_target=is_target,
    )


async def prune(models, on_stable=nothing, on_verdicts=nothing, **fields):
    servicer = serving(models, on_stable=on_stable, on_verdicts=on_verdicts)
    request = trainer_pb2.PruneCheckpointsRequest(**fields)
    response = await servicer.PruneCheckpoints(request, None)
    return sorted(int(name.split("-")[1]) for name in response.removed)


async def test_prunes_unneeded_checkpoints_once(tmp_path, published):
    asked = {"keep": 2, "seen_sequence": 5, "needed_digests": [published[0]]}
    assert await prune(tmp_path, **asked) == [2, 3]
    assert await prune(tmp_path, **asked) == []


async def test_keeps_checkpoints_not_seen_yet(tmp_path, published):
    assert await prune(tmp_path, keep=1, seen_sequence=2) == [1, 2]


async def test_hears_which_draft_is_stable(tmp_path, published):
    heard = []
    await prune(tmp_path, heard.append, keep=5)
    assert heard == []
    await prune(tmp_path, heard.append, keep=5, stable_digest=published[1], stable_uri="file:///s")
    assert heard == [StableDraft(published[1], "file:///s")]


async def test_hears_how_rollouts_ended(tmp_path):
    heard = []
    verdicts = [
        trainer_pb2.Verdict(
            rollout_id="chat-1",
            digest="sha256:b",
            outcome="RolledBack",
            reason="CrashHarm",
            effect_bps=-20,
            at_ms=7,
        ),
        trainer_pb2.Verdict(
            rollout_id="chat-2",
            digest="sha256:c",
            outcome="Promoted",
            reason="ReplayBetter",
            effect_bps=120,
            saved_bps=0,
            at_ms=9,
        ),
    ]
    await prune(tmp_path, on_verdicts=heard.append, keep=5, verdicts=verdicts)
    assert heard == [
        (
            Verdict("chat-1", "sha256:b", "RolledBack", "CrashHarm", -20, None, 7),
            Verdict("chat-2", "sha256:c", "Promoted", "ReplayBetter", 120, 0, 9),
        )
    ]


async def test_what_was_stable_is_told_to_the_next_deployment(tmp_path, published, identity):
    async def restorable(is_target=identity.is_named_by):
        servicer = serving(tmp_path, lambda: Standing(Progress(), 0, 0), is_target=is_target)
        status = await servicer.GetStatus(trainer_pb2.GetStatusRequest(), None)
        return status.restorable if status.HasField("restorable") else None

    asked = {"keep": 5, "seen_sequence": 5, "stable_digest": published[2], "attempts": 2}
    await prune(tmp_path, **asked)
    assert await restorable() is None

    await prune(tmp_path, **asked, record_stable=True)
    found = await restorable()
    assert (found.draft.sequence, found.draft.digest) == (3, published[2])
    assert found.draft.uri.startswith("file:///")
    assert (found.seen_sequence, found.attempts) == (5, 2)
    assert await restorable(lambda digest: False) is None


async def test_keeps_at_least_one(tmp_path):
    with pytest.raises(InvalidInputError, match="keep is 0"):
        await prune(tmp_path, keep=0)


async def test_a_watch_notices_a_checkpoint_that_somebody_else_placed(tmp_path, published):
    newest = next(tmp_path.glob("ckpt-5-*"))
    hidden = newest.rename(tmp_path / "elsewhere")
    request = trainer_pb2.WatchCheckpointsRequest(after_sequence=4)
    watch = serving(tmp_path).WatchCheckpoints(request, None)
    async with asyncio.timeout(30):
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        hidden.rename(newest)
        assert (await waiting).digest == published[4]
    await watch.aclose()


async def test_the_status_says_how_far_a_round_is(tmp_path, identity, target_folder):
    content = json.loads((target_folder / "config.json").read_text())
    publish_draft(
        random_draft(small_draft_config(parse_config(content, source="test")), 1),
        tmp_path,
        name="ckpt-1",
        target=identity,
        metrics={"acceptance": 0.625},
    )
    progress = Progress(
        phase="Training", new_trajectories=5, steps_left=20, sequence=1, training_seconds=30.0
    )
    servicer = serving(tmp_path, lambda: Standing(progress, 55, 5))
    status = await servicer.GetStatus(trainer_pb2.GetStatusRequest(), None)
    assert (status.new_trajectories, status.min_new_trajectories) == (5, 48)
    assert (status.steps_left, status.steps_per_round, status.eta_seconds) == (20, 60, 10.0)
    assert (status.checkpoint, status.acceptance) == ("ckpt-1", 0.625)
    pace = (status.max_share_percent, status.training_share, status.pause_seconds)
    assert pace == (10, 0.04, 3.0)


async def test_a_watch_of_the_status_says_why_a_round_published_nothing(tmp_path):
    standing = Standing(Progress(rounds=1), 0, 0)
    servicer = serving(tmp_path, lambda: standing)
    watch = aiter(servicer.WatchStatus(trainer_pb2.WatchStatusRequest(), None))
    assert (await anext(watch)).withheld == ""
    standing = Standing(Progress(rounds=2, withheld="held-out trajectories object"), 0, 0)
    assert (await anext(watch)).withheld == "held-out trajectories object"
    await servicer.close()


async def test_a_watch_of_the_status_says_why_training_pauses(tmp_path):
    progress = Progress(rounds=2, trajectories=100)
    servicer = serving(tmp_path, lambda: Standing(progress, 0, 0))
    watch = aiter(servicer.WatchStatus(trainer_pb2.WatchStatusRequest(), None))
    assert (await anext(watch)).waiting == ""
    plateau = Plateau(fruitless=2, trajectories=100)
    progress = dataclasses.replace(progress, control=Control(plateau=plateau))
    assert "after 200 trajectories" in (await anext(watch)).waiting
    await servicer.close()


async def test_before_the_first_round_nothing_is_made_up(tmp_path):
    servicer = serving(tmp_path, lambda: Standing(Progress(), 0, 0))
    status = await servicer.GetStatus(trainer_pb2.GetStatusRequest(), None)
    assert not status.HasField("eta_seconds")
    assert not status.HasField("acceptance")
    assert status.checkpoint == ""


async def test_a_watch_of_the_status_sends_problems(tmp_path):
    told = [""]
    standing = Standing(Progress(), 0, 0)
    servicer = serving(tmp_path, lambda: standing, problem=lambda: told[-1])
    watch = aiter(servicer.WatchStatus(trainer_pb2.WatchStatusRequest(), None))
    assert (await anext(watch)).problem == ""
    told.append("checkpoints cannot be written: no space left")
    assert (await anext(watch)).problem == told[-1]
    await servicer.close()


async def test_a_watch_of_the_status_sends_changes_of_phase(tmp_path):
    standing = Standing(Progress(new_trajectories=1), 0, 0)
    servicer = serving(tmp_path, lambda: standing)
    watch = aiter(servicer.WatchStatus(trainer_pb2.WatchStatusRequest(), None))
    assert (await anext(watch)).phase == "WaitingForTrajectories"
    # More trajectories are no change of phase.
    standing = Standing(Progress(new_trajectories=2), 0, 0)
    following = asyncio.ensure_future(anext(watch))
    await asyncio.wait((following,), timeout=1.2)
    assert not following.done()
    standing = Standing(Progress(phase="Training", steps_left=60), 0, 0)
    assert (await following).phase == "Training"
    await servicer.close()
    with pytest.raises(UnavailableError, match="watch again"):
        await anext(watch)
