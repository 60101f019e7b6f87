"""What the trainer makes of the verdicts of rollouts, and what it does not publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.training import Bench

from aurora.buffer.v1 import buffer_pb2
from aurora_model.draft import publish_draft, random_draft, small_draft_config
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.published import published_after
from aurora_trainer.verdict import StableDraft, Verdict

ROLLED_BACK = Verdict("chat-1", "sha256:b", "RolledBack", "ReplayHarm: all requests", -200, -150, 7)
PROMOTED = replace(ROLLED_BACK, rollout_id="chat-2", outcome="Promoted", reason="ReplayBetter")


@pytest.fixture(scope="module")
def entries(make_records) -> list[buffer_pb2.Entry]:
    """Enough for a comparison on those that are held out."""
    records = make_records(160)
    return [buffer_pb2.Entry(id=f"1000-{i}", trajectory=each) for i, each in enumerate(records)]


@pytest.fixture(scope="module")
def drafts(target, make_samples, tmp_path_factory) -> dict[str, StableDraft]:
    """`good`, which was trained for a while, `bad`, random, and `other`, of another shape."""
    root = tmp_path_factory.mktemp("drafts")
    config = small_draft_config(target.decoder.config)
    learner = Learner(random_draft(config, seed=1), LearnerSettings("LK", learning_rate=3e-3))
    samples, random = make_samples(100, seed=2), np.random.default_rng(0)
    for _ in range(40):
        learner.step([samples[i] for i in random.integers(len(samples), size=16)])
    found = {}
    for name, draft in {
        "good": learner.average,
        "bad": random_draft(config, seed=5),
        "other": target.decoder,
    }.items():
        folder, manifest = publish_draft(draft, root, name=name, target=target.identity)
        found[name] = StableDraft(manifest.digest, folder.as_uri())
    return found


def is_at(bench: Bench, seed_or_average) -> bool:
    mine, theirs = (each.state_dict() for each in (bench.trainer.learner.draft, seed_or_average))
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def loaded(bench: Bench, stable: StableDraft):
    return bench.trainer.workplace.drafts().load(stable, like=bench.trainer.learner.average)


@pytest.fixture
def bench(settings, entries, drafts) -> Bench:
    """Trajectories taken in, no round begun, and a stable draft that is better."""
    bench = Bench(settings)
    bench.trainer.take_in(entries)
    bench.trainer.measure_against(drafts["good"])
    return bench


def test_after_a_rollback_training_goes_on_from_a_stable_draft_that_is_better(bench, drafts):
    bench.trainer.tell((PROMOTED, ROLLED_BACK))
    assert not is_at(bench, loaded(bench, drafts["good"]))
    bench.trainer.take_verdicts()
    good = loaded(bench, drafts["good"])
    assert is_at(bench, good)
    average = bench.trainer.learner.average.state_dict()
    assert all(torch.equal(average[name], each) for name, each in good.state_dict().items())
    assert bench.trainer.verdicts == (PROMOTED, ROLLED_BACK)


@pytest.mark.parametrize("stable", ["bad", "other", "nowhere"])
def test_after_a_rollback_it_stays_if_held_out_trajectories_do_not_agree(
    bench, drafts, stable, caplog
):
    known = {**drafts, "nowhere": StableDraft(drafts["good"].digest, "file:///nowhere/good")}
    bench.trainer.begin_round(60)
    for _ in range(60):
        bench.trainer.train()
    before = bench.trainer.learner.draft.state_dict()
    before = {name: each.clone() for name, each in before.items()}
    bench.trainer.measure_against(known[stable])
    bench.trainer.tell((ROLLED_BACK,))
    bench.trainer.take_verdicts()
    after = bench.trainer.learner.draft.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert bench.trainer.verdicts == (ROLLED_BACK,)
    assert "stable draft not loaded" in caplog.text or stable != "nowhere"


@pytest.fixture
def changed(settings, entries, drafts) -> Callable[..., Bench]:
    """changed(initial, stable): training began with one, the other serves, and traffic changed."""

    def make(initial: str, stable: str) -> Bench:
        bench = Bench(replace(settings, draft=drafts[initial].uri))
        bench.trainer.take_in(entries[:100])
        bench.trainer.measure_against(drafts[stable])
        moved = [buffer_pb2.Entry() for _ in range(20)]
        for copy, entry in zip(moved, entries[100:120], strict=True):
            copy.CopyFrom(entry)
            copy.trajectory.domain = "b"
        bench.trainer.begin_round(1)
        bench.trainer.learner.go_on_from(loaded(bench, drafts["bad"]))
        bench.trainer.train()
        bench.trainer.take_in(moved)
        assert bench.trainer.progress.control.changed
        return bench

    return make


@pytest.mark.parametrize(
    ("initial", "stable", "chosen"),
    [("good", "bad", "good"), ("bad", "good", "good"), ("bad", "bad", None)],
)
def test_after_a_change_of_traffic_the_round_begins_from_the_best(
    changed, drafts, initial, stable, chosen
):
    bench = changed(initial, stable)
    before = {name: each.clone() for name, each in bench.trainer.learner.draft.state_dict().items()}
    bench.trainer.begin_round(3)
    after = bench.trainer.learner.draft.state_dict()
    if chosen is None:
        assert all(torch.equal(before[name], after[name]) for name in before)
    else:
        assert is_at(bench, loaded(bench, drafts[chosen]))
    # One change, one start.
    assert not bench.trainer.progress.control.changed


def test_other_verdicts_change_no_weights(bench, drafts):
    bench.trainer.tell((PROMOTED, replace(PROMOTED, outcome="Inconclusive")))
    bench.trainer.take_verdicts()
    assert not is_at(bench, loaded(bench, drafts["good"]))
    assert len(bench.trainer.verdicts) == 2


def test_a_verdict_counts_once_even_after_a_restart(bench, settings, entries, drafts):
    bench.trainer.tell((ROLLED_BACK,))
    # It is saved at once, with the weights that it led to.
    bench.turns(1)
    again = Bench(settings)
    assert again.trainer.verdicts == (ROLLED_BACK,)
    good = loaded(again, drafts["good"])
    again.trainer.begin_round(3)
    again.trainer.train()
    trained = {
        name: each.clone() for name, each in again.trainer.learner.draft.state_dict().items()
    }
    again.trainer.measure_against(drafts["good"])
    again.trainer.tell((ROLLED_BACK,))
    again.trainer.take_verdicts()
    found = again.trainer.learner.draft.state_dict()
    assert all(torch.equal(found[name], trained[name]) for name in found)
    assert not is_at(again, good)
    assert again.trainer.verdicts == (ROLLED_BACK,)


def test_a_verdict_that_was_not_saved_is_taken_in_again(bench, settings, drafts):
    bench.trainer.save()
    bench.trainer.tell((ROLLED_BACK,))
    bench.trainer.take_verdicts()
    crashed = Bench(settings)
    assert crashed.trainer.verdicts == ()
    crashed.trainer.tell((ROLLED_BACK,))
    crashed.trainer.take_verdicts()
    # It is still known which draft is stable.
    assert is_at(crashed, loaded(crashed, drafts["good"]))


def test_what_held_out_trajectories_speak_against_is_not_published(bench, settings, entries):
    ids = [entry.id for entry in entries]
    bench.turns(4)
    assert published_after(settings.models, 0) == []
    assert bench.listener.announcements == 0
    progress = bench.trainer.progress
    assert (progress.phase, progress.rounds, progress.sequence) == ("WaitingForTrajectories", 1, 0)
    assert progress.withheld_rounds == 1
    assert "held-out trajectories" in progress.withheld
    assert "with the stable draft" in progress.withheld
    # Its weights are kept, saved, and the trajectories acknowledged.
    assert bench.listener.acknowledged == ids
    again = Bench(settings).trainer
    assert again.progress == progress
    assert again.learner.steps == 3


def test_what_is_better_than_the_stable_draft_is_published(bench, settings, drafts):
    bench.trainer.measure_against(drafts["bad"])
    bench.trainer.begin_round(40)
    bench.turns(41)
    (published,) = published_after(settings.models, 0)
    assert published.manifest.parent_digest == drafts["bad"].digest
    assert bench.trainer.progress.withheld == ""


def test_a_round_that_publishes_clears_why_the_last_one_did_not(bench, settings, drafts):
    bench.turns(4)
    assert bench.trainer.progress.withheld
    bench.trainer.measure_against(drafts["bad"])
    bench.trainer.begin_round(40)
    bench.turns(41)
    assert bench.trainer.progress.withheld == ""
    assert bench.trainer.progress.withheld_rounds == 1


@pytest.mark.parametrize("stable", ["other", "nowhere"])
def test_what_cannot_be_compared_is_published(bench, settings, drafts, stable):
    nowhere = StableDraft(drafts["good"].digest, "file:///nowhere/good")
    bench.trainer.measure_against({**drafts, "nowhere": nowhere}[stable])
    bench.turns(4)
    assert len(published_after(settings.models, 0)) == 1


def test_a_verdict_waits_until_a_round_is_published(bench, settings, drafts):
    bench.trainer.measure_against(drafts["bad"])
    bench.trainer.begin_round(40)
    for _ in range(40):
        bench.trainer.train()
    # The round must be published as it is, however often that fails.
    bench.trainer.measure_against(drafts["good"])
    settings.models.rmdir()
    settings.models.write_text("in the way")
    bench.trainer.measure_against(StableDraft("sha256:s"))
    bench.trainer.tell((ROLLED_BACK,))
    bench.turns(2)
    assert bench.trainer.verdicts == ()
    settings.models.unlink()
    settings.models.mkdir()
    bench.clock.now_seconds += 10
    bench.turns(2)
    assert bench.trainer.verdicts == (ROLLED_BACK,)
    assert len(published_after(settings.models, 0)) == 1
