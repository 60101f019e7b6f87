import json
import os

import pytest

from aurora.trainer.v1 import trainer_pb2
from aurora_common.errors import InvalidInputError, StorageError
from aurora_trainer import rollout_records
from aurora_trainer.progress import Trigger
from aurora_trainer.rollout_records import keep_record
from aurora_trainer.servicer import TrainerServicer
from aurora_trainer.standing import Pace

DIGEST = "0123456789ab"
RECORD = {"apiVersion": "aurora.dev/v1alpha1", "kind": "RolloutRecord", "verdict": {}}


def content(**fields):
    return json.dumps({**RECORD, **fields}).encode()


def kept(models):
    return sorted(path.name for path in (models / "rollouts").iterdir())


def test_a_record_lies_beside_the_checkpoints_and_is_replaced_as_a_whole(tmp_path):
    keep_record(tmp_path, f"7-{DIGEST}", content(n=1))
    keep_record(tmp_path, f"7-{DIGEST}", content(n=2))
    keep_record(tmp_path, f"7-{DIGEST}-watch", content(n=3))
    assert kept(tmp_path) == [f"7-{DIGEST}-watch.json", f"7-{DIGEST}.json"]
    assert (tmp_path / "rollouts" / f"7-{DIGEST}.json").read_bytes() == content(n=2)


def test_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(rollout_records, "KEPT", 3)
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "notes.json").write_text("a person's")
    for number in (9, 10, 2, 11):
        keep_record(tmp_path, f"{number}-{DIGEST}", content())
    # By number, not by text or time.
    assert kept(tmp_path) == [
        *(f"10-{DIGEST}.json", f"11-{DIGEST}.json", f"9-{DIGEST}.json", "notes.json"),
    ]


@pytest.mark.parametrize(
    "name", ["", "7", f"../7-{DIGEST}", f"7-{DIGEST}/x", f"x-{DIGEST}", "7-0123456789AB", "7-01"]
)
def test_a_name_is_a_number_and_a_digest(tmp_path, name):
    with pytest.raises(InvalidInputError, match="is no record's name: use <number>-<12 hex"):
        keep_record(tmp_path, name, content())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "not an object with apiVersion and kind"),
        (b'{"kind": "x"}', "not an object with apiVersion and kind"),
        (b" " * (256 * 1024 + 1), "262145 bytes; allowed are at most 262144"),
    ],
)
def test_a_record_is_a_json_object_of_bounded_size(tmp_path, given, says):
    with pytest.raises(InvalidInputError, match=says):
        keep_record(tmp_path, f"7-{DIGEST}", given)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_earlier_record(tmp_path, monkeypatch):
    keep_record(tmp_path, f"7-{DIGEST}", content(n=1))

    def fails(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StorageError, match="No space left on device"):
        keep_record(tmp_path, f"7-{DIGEST}", content(n=2))
    assert kept(tmp_path) == [f"7-{DIGEST}.json"]
    assert (tmp_path / "rollouts" / f"7-{DIGEST}.json").read_bytes() == content(n=1)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "rollouts").write_text("in the way")
    with pytest.raises(StorageError, match="rollouts"):
        keep_record(tmp_path, f"7-{DIGEST}", content())


async def test_the_trainer_keeps_what_it_is_given(tmp_path):
    servicer = TrainerServicer(
        tmp_path,
        lambda: None,
        Trigger(min_new_trajectories=48, min_interval_seconds=0),
        steps_per_round=60,
        pace=lambda: Pace(100, 0.0, 0.0),
        problem=str,
        on_stable=lambda draft: None,
        on_verdicts=lambda verdicts: None,
        is_target=lambda digest: True,
    )
    request = trainer_pb2.KeepRolloutRecordRequest(name=f"7-{DIGEST}", content=content())
    await servicer.KeepRolloutRecord(request, None)
    assert kept(tmp_path) == [f"7-{DIGEST}.json"]
