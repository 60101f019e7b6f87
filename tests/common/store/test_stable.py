"""The record of the stable draft beside the drafts, and what it takes to believe it."""

import json

import pytest

from aurora_common.checkpoint import CheckpointManifest, folder_digest
from aurora_common.durable import new_folder
from aurora_common.errors import StorageError
from aurora_common.store.stable import STABLE, StableFile, StableRecord

TARGET = "sha256:target"


def publish(models, sequence, *, target=TARGET):
    with new_folder(models / f"new-{sequence}") as inside:
        (inside / "model.safetensors").write_text(f"draft {sequence}")
        digest = folder_digest(inside)
        manifest = CheckpointManifest(f"ckpt-{sequence}", digest, target, "sha256:tokenizer")
        (inside / "aurora.json").write_bytes(manifest.to_json())
    folder = models / f"ckpt-{sequence}-{digest[7:19]}"
    (models / f"new-{sequence}").rename(folder)
    return folder, digest


@pytest.fixture
def stable(tmp_path):
    return StableFile(tmp_path, lambda digest: digest == TARGET)


def test_a_new_store_has_none(stable):
    assert stable.restorable() is None


def test_the_recorded_draft_comes_back_with_what_was_known(stable, tmp_path):
    publish(tmp_path, 1)
    folder, digest = publish(tmp_path, 2)
    publish(tmp_path, 3)

    stable.write(StableRecord(digest, seen_sequence=3, attempts=1))

    found = StableFile(tmp_path, lambda digest: digest == TARGET).restorable()
    assert (found.draft.folder, found.draft.sequence) == (folder, 2)
    assert (found.record.seen_sequence, found.record.attempts) == (3, 1)
    assert json.loads((tmp_path / STABLE).read_text()) == {
        "attempts": 1,
        "digest": digest,
        "seen_sequence": 3,
    }


def test_the_last_one_counts(stable, tmp_path):
    _, first = publish(tmp_path, 1)
    _, second = publish(tmp_path, 2)
    for digest in (first, second, first):
        stable.write(StableRecord(digest))
    assert stable.restorable().draft.sequence == 1


def test_the_same_is_not_written_again(stable, tmp_path):
    _, digest = publish(tmp_path, 1)
    stable.write(StableRecord(digest))
    before = (tmp_path / STABLE).stat().st_ino
    stable.write(StableRecord(digest))
    assert (tmp_path / STABLE).stat().st_ino == before


def test_one_that_is_not_in_the_store_is_none(stable, tmp_path):
    """As the draft of the manifest, or one that somebody deleted."""
    publish(tmp_path, 1)
    stable.write(StableRecord("sha256:elsewhere"))
    assert stable.restorable() is None


def test_another_targets_is_none(stable, tmp_path, caplog):
    _, digest = publish(tmp_path, 1, target="sha256:other")
    stable.write(StableRecord(digest))
    assert stable.restorable() is None
    assert "another target's" in caplog.text


def test_a_damaged_one_is_none(stable, tmp_path, caplog):
    folder, digest = publish(tmp_path, 1)
    (folder / "model.safetensors").write_text("damaged")
    stable.write(StableRecord(digest))
    assert stable.restorable() is None
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"digest": 7}', b'{"digest": "d", "attempts": "1"}', b"\xff"]
)
def test_an_unreadable_record_is_none_and_is_replaced(stable, tmp_path, caplog, content):
    _, digest = publish(tmp_path, 1)
    (tmp_path / STABLE).write_bytes(content)
    assert stable.restorable() is None
    assert "unreadable" in caplog.text

    stable.write(StableRecord(digest))
    assert stable.restorable().draft.sequence == 1


def test_what_a_later_version_adds_is_no_problem(stable, tmp_path):
    _, digest = publish(tmp_path, 1)
    (tmp_path / STABLE).write_text(json.dumps({"digest": digest, "later": True}))
    assert stable.restorable().record == StableRecord(digest)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    missing = StableFile(tmp_path / "missing", lambda digest: True)
    with pytest.raises(StorageError, match="cannot write"):
        missing.write(StableRecord("sha256:1"))
