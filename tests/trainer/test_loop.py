"""Taking in, training, publishing and saving, with crashes and a full disk in between."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import torch
from support.training import SCHEDULE, Bench

from aurora.buffer.v1 import buffer_pb2
from aurora_common.checkpoint import folder_digest
from aurora_common.errors import CheckpointError, StorageError
from aurora_common.lasting import LASTING_SECONDS
from aurora_model.draft import load_draft, publish_draft, random_draft, small_draft_config
from aurora_trainer import assembly
from aurora_trainer.assembly import assembled_trainer
from aurora_trainer.data.replay import ReplayLimits, is_held_out
from aurora_trainer.progress import Trigger
from aurora_trainer.published import published_after
from aurora_trainer.settings import TrainSettings
from aurora_trainer.verdict import StableDraft


@pytest.fixture
def entries(make_records) -> list[buffer_pb2.Entry]:
    return [
        buffer_pb2.Entry(id=f"1000-{i}", trajectory=each) for i, each in enumerate(make_records(40))
    ]


def sequences(settings: TrainSettings) -> list[int]:
    return [each.sequence for each in published_after(settings.models, 0)]


def test_a_round_publishes_then_saves_then_acknowledges(settings, entries, target):
    bench = Bench(settings)
    bench.source.entries = entries
    bench.turns(2)
    assert bench.listener.acknowledged == []
    bench.turns(1)
    assert bench.listener.acknowledged == [entry.id for entry in entries]
    assert bench.listener.announcements == 1
    (published,) = published_after(settings.models, 0)
    decoder, manifest = load_draft(published.folder, target=target.identity, dtype=torch.float32)
    assert (manifest.trained_from, manifest.trained_through) == ("1000-0", "1000-39")
    assert manifest.objective == "LK"
    assert manifest.metrics["trajectories"] == 40
    assert 0 < manifest.metrics["acceptance"] < 1
    average = bench.trainer.learner.average
    torch.testing.assert_close(decoder.state_dict(), average.state_dict(), rtol=0, atol=0)


def test_the_parent_of_a_checkpoint_is_the_draft_that_it_is_judged_against(settings, entries):
    bench = Bench(settings)
    for start, stable in ((0, ""), (10, ""), (20, "sha256:stable"), (30, "")):
        if stable:
            bench.trainer.measure_against(StableDraft(stable))
        bench.source.entries = entries[start : start + 10]
        bench.turns(4)
    found = published_after(settings.models, 0)
    assert [each.sequence for each in found] == [1, 2, 3, 4]
    # Not the one before: that may have been refused.
    parents = [each.manifest.parent_digest for each in found]
    assert parents == ["", "", "sha256:stable", "sha256:stable"]


def test_a_restarted_trainer_remembers_what_it_is_judged_against(settings, entries):
    bench = Bench(settings)
    bench.trainer.measure_against(StableDraft("sha256:stable"))
    bench.trainer.take_in(entries)
    bench.trainer.save()
    restarted = Bench(settings)
    restarted.turns(4)
    (found,) = published_after(settings.models, 0)
    assert found.manifest.parent_digest == "sha256:stable"


def test_a_head_is_trained_and_published_from_token_ids_alone(settings, entries, target):
    for entry in entries:
        entry.trajectory.ClearField("target")
    bench = Bench(dataclasses.replace(settings, **BESIDE_ITS_TARGET))
    bench.source.entries = entries
    bench.turns(3)
    [checkpoint] = published_after(settings.models, 0)
    head, manifest = load_draft(checkpoint.folder, target=target.identity, dtype=torch.float32)
    assert (manifest.kind, head.config.owns_head) == ("eagle3", False)
    assert 0 < manifest.metrics["acceptance"] < 1
    assert bench.trainer.progress.skipped == 0


@pytest.mark.parametrize("order", [("Recorded", "Recompute"), ("Recompute", "Recorded")])
def test_trajectories_saved_for_other_targets_are_not_trained_on(settings, entries, order):
    before, after = (dataclasses.replace(settings, targets=targets) for targets in order)
    bench = Bench(before)
    bench.source.entries = entries
    bench.turns(4)
    bench.finish()
    again = Bench(after)
    assert not again.trainer.can_train
    assert again.trainer.learner.steps == bench.trainer.learner.steps == 3
    again.source.entries = [
        buffer_pb2.Entry(id=f"2000-{i}", trajectory=each.trajectory)
        for i, each in enumerate(entries)
    ]
    again.turns(3)
    assert again.trainer.learner.steps == 6


def test_a_state_of_another_kind_is_refused(settings, entries):
    bench = Bench(settings)
    bench.source.entries = entries
    bench.turns(1)
    bench.finish()
    with pytest.raises(StorageError, match="a draft of kind standalone, not eagle3"):
        assembled_trainer(dataclasses.replace(settings, **BESIDE_ITS_TARGET))


def test_a_draft_of_another_kind_is_refused(settings, target, tmp_path):
    draft = random_draft(small_draft_config(target.decoder.config), seed=5)
    folder, _ = publish_draft(draft, tmp_path, name="start", target=target.identity)
    given = dataclasses.replace(settings, draft=folder.as_uri(), **BESIDE_ITS_TARGET)
    with pytest.raises(CheckpointError, match="of kind standalone: allowed is eagle3"):
        assembled_trainer(given)


def test_training_begins_with_the_given_draft(settings, entries, tmp_path, target):
    trained = Bench(settings)
    trained.source.entries = entries
    trained.turns(3)
    (given,) = published_after(settings.models, 0)
    other = dataclasses.replace(
        settings, draft=given.folder.as_uri(), models=tmp_path / "m2", state=tmp_path / "s2"
    )
    bench = Bench(other)
    assert bench.trainer.progress.parent_digest == given.manifest.digest
    weights, _ = load_draft(given.folder, target=target.identity, dtype=torch.float32)
    torch.testing.assert_close(bench.trainer.learner.draft.state_dict(), weights.state_dict())


def test_too_few_trajectories_train_nothing_but_are_saved_in_time(settings, entries):
    bench = Bench(settings)
    bench.source.entries = entries[:9]
    bench.turns(1)
    assert bench.listener.acknowledged == []
    bench.clock.now_seconds += 101
    bench.turns(1)
    assert len(bench.listener.acknowledged) == 9
    assert bench.trainer.progress.phase == "WaitingForTrajectories"


def test_many_trajectories_are_saved_at_once(settings, entries):
    bench = Bench(settings, dataclasses.replace(SCHEDULE, save_entries=5))
    bench.source.entries = entries[:6]
    bench.turns(1)
    assert len(bench.listener.acknowledged) == 6


def test_a_budget_paces_the_steps(settings, entries):
    bench = Bench(settings, max_share_percent=10)
    train = bench.trainer.train

    def two_seconds() -> None:
        train()
        bench.clock.now_seconds += 2

    bench.trainer.train = two_seconds
    bench.source.entries = entries
    # A new process has nothing saved up.
    bench.turns(1)
    assert (bench.trainer.progress.trajectories, bench.trainer.learner.steps) == (40, 0)
    bench.clock.now_seconds += 1
    bench.turns(3)
    assert bench.trainer.learner.steps == 1
    bench.clock.now_seconds += 17
    bench.turns(1)
    assert bench.trainer.learner.steps == 1
    bench.clock.now_seconds += 2
    bench.turns(1)
    assert bench.trainer.learner.steps == 2


def test_a_holdout_alone_begins_no_round(settings, entries):
    held_out = [e for e in entries if is_held_out(e.trajectory.request_id, 20)]
    bench = Bench(settings, dataclasses.replace(SCHEDULE, trigger=Trigger(1, 0.0)))
    bench.source.entries = held_out[:2]
    bench.turns(2)
    assert bench.trainer.progress.phase == "WaitingForTrajectories"


def test_stopped_within_a_round_it_resumes_there(settings, entries):
    bench = Bench(settings)
    bench.source.entries = entries
    bench.turns(1)
    bench.finish()
    assert len(bench.listener.acknowledged) == 40
    again = Bench(settings)
    assert (again.trainer.progress.phase, again.trainer.progress.steps_left) == ("Training", 2)
    again.turns(2)
    assert sequences(settings) == [1]


BESIDE_ITS_TARGET = {"draft_kind": "eagle3", "targets": "Recompute"}


@pytest.mark.parametrize("kind", [{}, {"targets": "Recompute"}, BESIDE_ITS_TARGET])
def test_an_interrupted_round_ends_with_the_same_weights(settings, entries, tmp_path, kind):
    settings = dataclasses.replace(settings, **kind)
    straight = Bench(settings)
    straight.source.entries = entries
    straight.turns(3)
    other = dataclasses.replace(settings, models=tmp_path / "m2", state=tmp_path / "s2")
    interrupted = Bench(other)
    interrupted.source.entries = entries
    interrupted.turns(1)
    interrupted.finish()
    Bench(other).turns(2)
    digests = [published_after(each.models, 0)[0].manifest.digest for each in (settings, other)]
    assert digests[0] == digests[1]


def test_entries_delivered_twice_count_once(settings, entries):
    bench = Bench(settings)
    bench.source.entries = entries[:5] + entries[:5]
    bench.turns(1)
    assert bench.trainer.progress.trajectories == 5
    assert bench.listener.acknowledged == []
    bench.finish()
    again = Bench(settings)
    again.source.entries = entries[:5]
    again.turns(1)
    assert again.trainer.progress.trajectories == 5
    assert again.listener.acknowledged == [entry.id for entry in entries[:5]]


def test_a_late_entry_older_than_the_position_is_not_lost(settings, entries):
    bench = Bench(settings)
    bench.source.entries = entries[5:9]
    bench.turns(1)
    bench.finish()
    again = Bench(settings)
    again.source.entries = entries[:5]
    again.turns(1)
    assert again.trainer.progress.trajectories == 9


def test_foreign_and_malformed_records_are_counted_and_acknowledged(settings, entries):
    foreign, malformed, empty, beyond, nan, sound = entries[:6]
    empty.trajectory.ClearField("output_tokens")
    beyond.trajectory.prompt_tokens[0] = 2**32 - 1
    nan.trajectory.target.tail_mass = b"\xff\x7f" * len(nan.trajectory.output_tokens)
    foreign.trajectory.target_digest = "sha256:other"
    malformed.trajectory.target.k = 3
    bench = Bench(settings)
    bench.source.entries = [foreign, malformed, empty, beyond, nan, sound]
    bench.turns(1)
    bench.finish()
    assert bench.listener.acknowledged == [f"1000-{number}" for number in range(6)]
    progress = Bench(settings).trainer.progress
    assert (progress.trajectories, progress.skipped) == (1, 5)
    assert progress.skip_reasons == {"Foreign": 1, "Malformed": 4}


def test_one_prompt_again_and_again_leaves_room_for_others(settings, entries, caplog):
    bench = Bench(settings)
    flood = []
    for number in range(300):
        copy = buffer_pb2.Entry(id=f"1000-{number}", trajectory=entries[0].trajectory)
        copy.trajectory.request_id = f"request-{number}"
        flood.append(copy)
    bench.source.entries = flood
    bench.turns(1)
    progress = bench.trainer.progress
    limits = ReplayLimits()
    most = (limits.window_count * 12 // 100) + (limits.holdout_count * 12 // 100)
    assert (progress.trajectories, progress.skip_reasons) == (most, {"Repeated": 300 - most})
    # One line for each doubling.
    assert caplog.text.count("trajectory skipped") == (300 - most).bit_length()
    bench.source.entries = [buffer_pb2.Entry(id="2000-0", trajectory=entries[1].trajectory)]
    bench.turns(1)
    assert bench.trainer.progress.trajectories == most + 1


def test_a_crash_between_publishing_and_saving_only_spends_the_number(settings, entries):
    crashed = Bench(settings)
    crashed.trainer.take_in(entries)
    crashed.trainer.save()
    crashed.trainer.begin_round(1)
    crashed.trainer.train()
    orphan = crashed.trainer.publish(now_ms=1)
    bench = Bench(settings)
    assert bench.trainer.progress.sequence == 0
    bench.turns(4)
    first, second = published_after(settings.models, 0)
    assert first.manifest == orphan
    assert second.sequence == 2
    # It went on from the saved state, which the orphan is no part of.
    assert second.manifest.parent_digest == ""


def test_half_written_files_of_a_killed_process_are_removed(settings):
    half = settings.models / ".ckpt-1.999.partial"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    settings.state.mkdir()
    (settings.state / ".state.pt.999.partial").write_bytes(b"half")
    Bench(settings)
    assert list(settings.models.iterdir()) == []
    assert list(settings.state.iterdir()) == []


def test_a_failed_write_is_retried_later_and_nothing_is_lost(settings, entries, caplog):
    bench = Bench(settings)
    settings.models.rmdir()
    settings.models.write_text("in the way")
    bench.source.entries = entries
    bench.turns(10)
    assert bench.trainer.progress.phase == "Publishing"
    assert bench.listener.acknowledged == []
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "checkpoint or state write failed; will retry"
    ]
    bench.clock.now_seconds += 1.1
    bench.turns(1)
    bench.clock.now_seconds += 1.1
    settings.models.unlink()
    settings.models.mkdir()
    bench.turns(1)
    # The second wait is twice as long.
    assert sequences(settings) == []
    bench.clock.now_seconds += 1.0
    bench.turns(1)
    assert sequences(settings) == [1]
    assert len(bench.listener.acknowledged) == 40


def test_a_write_that_fails_for_long_is_told(settings, entries):
    bench = Bench(settings)
    settings.models.rmdir()
    settings.models.write_text("in the way")
    bench.source.entries = entries
    bench.turns(10)
    assert bench.failures.lasting() == {}
    bench.clock.now_seconds += LASTING_SECONDS
    (told,) = bench.failures.lasting().values()
    assert told.startswith("checkpoints cannot be written: ")
    settings.models.unlink()
    settings.models.mkdir()
    bench.turns(1)
    assert bench.failures.lasting() == {}


def test_only_a_bounded_number_of_entries_is_held_unsaved(settings, entries):
    bench = Bench(settings, dataclasses.replace(SCHEDULE, unsaved_limit=9, save_entries=1))
    settings.state.rename(settings.state.with_name("elsewhere"))
    bench.source.entries = entries[:9]
    bench.turns(1)
    bench.source.entries = entries[9:]
    stopped = threading.Event()
    stopped.set()
    bench.loop.turn(stopped)
    assert bench.trainer.progress.trajectories == 9
    assert len(bench.source.entries) == 31


def test_weights_that_are_not_finite_are_not_published(settings, entries):
    bench = Bench(settings)
    bench.source.entries = entries
    bench.turns(2)
    with torch.no_grad():
        bench.trainer.learner.average.norm.weight.fill_(torch.nan)
    bench.turns(1)
    assert sequences(settings) == []
    assert bench.trainer.progress.phase == "WaitingForTrajectories"
    assert len(bench.listener.acknowledged) == 40
    bench.trainer.begin_round(1)
    bench.turns(1)
    assert sequences(settings) == [1]


def test_a_state_of_another_target_is_refused(settings, tmp_path, target):
    bench = Bench(settings)
    bench.finish()
    other = tmp_path / "other"
    other.mkdir()
    for file in target.folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "tokenizer.json").write_text('{"another": 1}')
    with pytest.raises(StorageError, match="belongs to target"):
        Bench(dataclasses.replace(settings, target=other.as_uri()))


def test_a_state_of_an_earlier_version_is_resumed(settings, entries, tmp_path, target, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    for file in target.folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "README.md").write_text("# A model")
    settings = dataclasses.replace(settings, target=other.as_uri())
    # What was the identity then: of every file.
    former = dataclasses.replace(target.identity, digest=folder_digest(other))
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "target_identity", lambda _: former)
        bench = Bench(settings)
        bench.finish()
    for entry in entries:
        entry.trajectory.target_digest = former.digest

    bench = Bench(settings)
    bench.source.entries = entries
    bench.turns(3)

    (published,) = published_after(settings.models, 0)
    assert published.manifest.target_digest == target.identity.digest
    assert bench.trainer.progress.skipped == 0


def test_a_draft_with_fewer_tokens_than_the_target_learns(settings, entries, tmp_path, target):
    config = dataclasses.replace(small_draft_config(target.decoder.config), vocab_size=50)
    given, _ = publish_draft(
        random_draft(config, seed=2), tmp_path, name="given", target=target.identity
    )
    bench = Bench(dataclasses.replace(settings, draft=given.as_uri()))
    bench.source.entries = entries
    bench.turns(3)

    (published,) = published_after(settings.models, 0)
    draft, _ = load_draft(published.folder, target=target.identity, dtype=torch.float32)
    assert draft.config.vocab_size == 50
    progress = bench.trainer.progress
    assert (progress.skipped, bench.trainer.learner.skipped_steps) == (0, 0)
    assert published.manifest.metrics["loss"] > 0
    assert 0 < published.manifest.metrics["acceptance"] < 1


def test_a_checkpoint_without_a_manifest_is_ignored_but_has_used_its_number(
    settings, entries, target
):
    bench = Bench(settings)
    (settings.models / "ckpt-7-0123456789ab").mkdir()
    assert sequences(settings) == []
    bench.source.entries = entries
    bench.turns(3)
    assert sequences(settings) == [8]


def test_other_folders_are_no_checkpoints(settings, target):
    bench = Bench(settings)
    draft = bench.trainer.learner.average
    publish_draft(draft, settings.models, name="initial", target=target.identity)
    assert sequences(settings) == []
