"""The plugin digests a checkpoint exactly as Aurora does."""

from __future__ import annotations

import os

import pytest

from aurora_common import checkpoint as auroras
from aurora_vllm import checkpoint
from aurora_vllm.refusal import RefusedError


def test_the_digest_is_auroras(publish):
    folder, manifest = publish("digest", seed=3)
    (folder / "Übersicht 1.txt").write_text("äöü")
    (folder / "a").write_bytes(b"")

    expected = auroras.folder_digest(folder)

    assert checkpoint.folder_digest(folder) == expected != manifest.digest


def test_a_checkpoint_is_read_whole(publish):
    folder, manifest = publish("whole", seed=4)

    read = checkpoint.read_checkpoint(folder, manifest.digest, folder.parent)

    assert read.digest == manifest.digest
    assert read.manifest.tokenizer_digest == manifest.tokenizer_digest
    assert read.config["model_type"] == "llama"
    assert read.weights["model.safetensors"] == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("content", [b"[]", b'{"name": 3}', b"\xff"])
def test_a_malformed_manifest_is_refused(publish, content):
    folder, manifest = publish(f"malformed-{len(content)}", seed=len(content))
    (folder / "aurora.json").write_bytes(content)

    with pytest.raises(RefusedError, match=r"aurora\.json"):
        checkpoint.read_checkpoint(folder, manifest.digest, folder.parent)


def test_what_lies_beside_a_checkpoint_is_found_and_what_cannot_be_read_is_not(publish, tmp_path):
    folder, manifest = publish("beside", seed=5)
    store = tmp_path / "store"
    for name in ("one", "other"):
        (store / name).mkdir(parents=True)
        (store / name / "aurora.json").write_bytes((folder / "aurora.json").read_bytes())
    (store / "other" / "aurora.json").write_text('{"digest": "sha256:b", "parent_digest": "a"}')
    (store / "broken").mkdir()
    (store / "broken" / "aurora.json").write_text("[]")
    (store / "link").symlink_to(folder)
    (store / "fifo").mkdir()
    os.mkfifo(store / "fifo" / "aurora.json")
    (store / ".trainer").write_text("no folder")

    found = {each.digest for each in checkpoint.manifests_beside(store / "one", store)}
    assert found == {manifest.digest, "sha256:b"}


def test_without_a_store_nothing_is_taken():
    with pytest.raises(RefusedError, match="AURORA_VLLM_STORE"):
        checkpoint.folder_in_store("draft", None)
