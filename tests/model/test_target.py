"""What names a target, and its tokenizer."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aurora_common.checkpoint import folder_digest
from aurora_common.errors import CheckpointError, InvalidInputError
from aurora_model.decoder import Decoder
from aurora_model.draft import load_draft, publish_draft
from aurora_model.target import target_identity
from aurora_model.tokenizer import load_tokenizer
from aurora_model.weights import save_decoder


@pytest.fixture
def folder(draft: Decoder, tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "hello": 1, "world": 2}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path)
    save_decoder(draft, tmp_path)
    return tmp_path


def test_identity_follows_the_content_and_not_the_place(folder: Path, tmp_path_factory):
    identity = target_identity(folder)
    moved = tmp_path_factory.mktemp("elsewhere") / "model"
    folder.rename(moved)

    assert target_identity(moved) == identity
    assert identity.vocab_size == 97


def test_another_tokenizer_is_another_identity(folder: Path):
    before = target_identity(folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("hello", "hallo"))

    after = target_identity(folder)

    assert after.tokenizer_digest != before.tokenizer_digest
    assert after.digest != before.digest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("generation_config.json", '{"temperature": 0.6}'),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
        ("README.md", "# A model"),
    ],
)
def test_what_is_neither_weights_config_nor_tokenizer_changes_no_identity(
    folder: Path, name, content
):
    before = target_identity(folder)
    (folder / name).write_text(content)

    assert target_identity(folder).digest == before.digest


def test_another_config_or_other_weights_are_another_identity(folder: Path):
    digests = {target_identity(folder).digest}
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    digests.add(target_identity(folder).digest)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    digests.add(target_identity(folder).digest)

    assert len(digests) == 3


def test_every_shard_is_part_of_the_identity(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    for shard, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / shard)
    places = {name: "ab"[i % 2] + ".safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    before = target_identity(folder)

    for shard in ("a.safetensors", "b.safetensors"):
        content = bytearray((folder / shard).read_bytes())
        content[-1] ^= 1
        (folder / shard).write_bytes(content)
        assert target_identity(folder).digest != before.digest


def test_the_digest_is_what_sha256sum_says(folder: Path):
    listing = subprocess.run(
        ["sha256sum", "config.json", "model.safetensors", "tokenizer.json"],
        cwd=folder,
        capture_output=True,
        check=True,
    ).stdout
    assert target_identity(folder).digest == f"sha256:{hashlib.sha256(listing).hexdigest()}"


def test_a_draft_of_an_earlier_version_names_the_whole_folder(
    folder: Path, draft: Decoder, tmp_path_factory
):
    identity = target_identity(folder)
    former = replace(identity, digest=folder_digest(folder))
    assert former.digest != identity.digest
    published, _ = publish_draft(draft, tmp_path_factory.mktemp("d"), name="ckpt-1", target=former)

    load_draft(published, target=identity, dtype=torch.float32)

    # Once the folder has changed, nobody can tell what that digest was.
    (folder / "README.md").write_text("# A model")
    with pytest.raises(CheckpointError, match="`aurora drafts import`"):
        load_draft(published, target=target_identity(folder), dtype=torch.float32)


def test_a_target_without_tokenizer_is_refused(folder: Path):
    (folder / "tokenizer.json").unlink()

    with pytest.raises(InvalidInputError, match=r"tokenizer\.json: No such file"):
        target_identity(folder)


def test_the_tokenizer_of_a_folder_is_read(folder: Path):
    tokenizer = load_tokenizer(folder)

    assert tokenizer.encode("hello world") == [1, 2]
    assert tokenizer.decode([2]) == "world"


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_bad_tokenizer_is_refused(folder: Path, text):
    if text is None:
        (folder / "tokenizer.json").unlink()
    else:
        (folder / "tokenizer.json").write_text(text)

    with pytest.raises(InvalidInputError, match="tokenizer"):
        load_tokenizer(folder)
