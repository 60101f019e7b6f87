"""What several ranks compute together is what one computes alone."""

from __future__ import annotations

import pytest
import torch

from aurora_common import lasting
from aurora_model.draft import draft_kind, random_draft, small_draft_config
from aurora_trainer.data.batch import pack
from aurora_trainer.data.teacher import Teacher, held_target
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.ranks import coordinator
from aurora_trainer.ranks.gradient import RankedGradient

SETTINGS = LearnerSettings(objective="LK", learning_rate=3e-3, warmup_steps=1)


def learners(meeting, draft, *, target=None, digest=""):
    """Two of the same draft: one alone, and one with all ranks."""
    found = []
    for shared in (None, meeting.coordinator):
        kind, config = type(draft), draft.config
        own = kind.build(config)
        own.load_state_dict(draft.state_dict())
        teacher, gradient = None, None
        if target is not None:
            own.attach(target)
            teacher = Teacher(target, own.target_layers(target.config))
        if shared is not None:
            gradient = RankedGradient(
                shared, "LK", unroll=SETTINGS.unroll, teacher=teacher, target_digest=digest
            )
        packed = pack if teacher is None else teacher.pack
        found.append(Learner(own, SETTINGS, gradient, packed=packed))
    return found


def curves(alone, together, batches):
    for batch in batches:
        one, two = alone.step(batch), together.step(batch)
        assert (one.replicas, two.replicas) == (1, 2)
        yield one, two


def test_the_loss_curve_of_two_ranks_is_that_of_one(make_meeting, target, make_samples):
    meeting = make_meeting()
    meeting.coordinate()
    meeting.add()
    meeting.until(lambda: meeting.size() == 2, "both train")
    draft = random_draft(small_draft_config(target.decoder.config), seed=0)
    samples = make_samples(40)
    batches = [samples[number : number + 8] for number in range(0, 32, 2)]
    alone, together = learners(meeting, draft)

    losses = []
    for one, two in curves(alone, together, batches):
        assert two.loss == pytest.approx(one.loss, abs=1e-3)
        assert two.acceptance == pytest.approx(one.acceptance, abs=1e-3)
        losses.append(one.loss)

    assert losses[-1] < losses[0] - 0.05
    for ours, theirs in zip(alone.draft.parameters(), together.draft.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)


def test_ranks_that_hold_the_target_train_a_head_together(make_meeting, target, make_samples):
    meeting = make_meeting()
    meeting.coordinate()
    meeting.add("--target", target.folder.as_uri())
    held = held_target(target.folder, torch.device("cpu"))
    draft = draft_kind("eagle3").random(held.config, 0)
    meeting.until(lambda: meeting.size() == 2, "both train")
    alone, together = learners(meeting, draft, target=held, digest=target.identity.digest)
    samples = make_samples(12)

    for one, two in curves(alone, together, [samples[:4], samples[4:9], samples[9:]]):
        assert two.loss == pytest.approx(one.loss, abs=1e-3)


def test_a_rank_without_the_trainers_target_leaves_and_both_say_why(
    make_meeting, target, make_samples, monkeypatch
):
    monkeypatch.setattr(lasting, "LASTING_SECONDS", 0.0)
    monkeypatch.setattr(coordinator, "_FIRST_BACKOFF_SECONDS", 60.0)
    meeting = make_meeting()
    meeting.coordinate()
    rank = meeting.add()
    held = held_target(target.folder, torch.device("cpu"))
    draft = random_draft(small_draft_config(target.decoder.config), seed=0)
    meeting.until(lambda: meeting.size() == 2, "both train")
    alone, together = learners(meeting, draft, target=held, digest=target.identity.digest)
    batch = make_samples(4)

    one, two = alone.step(batch), together.step(batch)

    assert (two.loss, two.replicas) == (pytest.approx(one.loss, abs=1e-6), 1)
    meeting.until(lambda: "holds no target" in rank.log, "it says so")
    said = "1 of 2 ranks train: rank 1: this rank holds no target, the trainer target sha256:"
    meeting.until(lambda: meeting.coordinator.problem.startswith(said), "the trainer says so")
    assert rank.process.poll() is None
