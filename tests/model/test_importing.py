"""A plain Hugging Face folder becomes a draft of a target, or the refusal says why not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from aurora_common.errors import CheckpointError, ConflictError
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder
from aurora_model.draft import load_draft, random_draft
from aurora_model.draft.importing import import_draft
from aurora_model.target import target_identity
from aurora_model.weights import load_decoder, save_decoder

TOKENS = 320


def tokenizer(first: str = "t0") -> Tokenizer:
    vocabulary = {first: 0} | {f"t{i}": i for i in range(1, TOKENS)}
    made = Tokenizer(models.WordLevel(vocabulary, first))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def write(folder: Path, decoder: Decoder, *, words: Tokenizer | None = None) -> Path:
    folder.mkdir(parents=True)
    save_decoder(decoder, folder)
    (words or tokenizer()).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def make(config: DecoderConfig, tmp_path: Path):
    """make(name, rows): a model folder whose vocabulary is padded to `rows`."""

    def folder(name: str, rows: int, *, words: Tokenizer | None = None) -> Path:
        decoder = random_draft(replace(config, vocab_size=rows), seed=len(name))
        return write(tmp_path / name, decoder, words=words)

    return folder


@pytest.mark.parametrize(("rows", "kept"), [(384, 384), (352, 352), (512, 384), (320, 320)])
def test_a_folder_becomes_a_checkpoint(make, tmp_path, models, rows, kept):
    source, target = make("small", rows), make("large", 384)

    folder, manifest = import_draft(source, tmp_path / "out", target=target)

    identity = target_identity(target)
    assert folder.parent == tmp_path / "out"
    assert folder.name.startswith("small-")
    assert (manifest.target_digest, manifest.tokenizer_digest, manifest.kind) == (
        identity.digest,
        identity.tokenizer_digest,
        "standalone",
    )
    draft, _ = load_draft(folder, target=identity, dtype=torch.float32)
    assert draft.config.vocab_size == kept
    tokens = models.tokens()
    expected = models.logits(load_decoder(source, dtype=torch.float32), tokens)[..., :kept]
    torch.testing.assert_close(models.logits(draft, tokens), expected, rtol=0, atol=1e-6)


def test_importing_again_changes_nothing(make, tmp_path):
    source, target = make("small", 352), make("large", 384)
    first = import_draft(source, tmp_path / "out", target=target)
    assert import_draft(source, tmp_path / "out", target=target) == first


def test_shards_in_bfloat16_are_read(make, tmp_path):
    source, target = make("small", 352), make("large", 384)
    decoder = load_decoder(source, dtype=torch.bfloat16)
    (source / "model.safetensors").unlink()
    half = source.with_name("half")
    half.mkdir()
    save_decoder(decoder, half)
    (half / "model.safetensors").rename(source / "part.safetensors")
    index = {"weight_map": {"every tensor": "part.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))

    folder, _ = import_draft(source, tmp_path / "out", target=target)

    draft, _ = load_draft(folder, target=target_identity(target), dtype=torch.float32)
    assert torch.equal(draft.norm.weight, decoder.norm.weight.float())
    assert torch.equal(draft.embed_tokens.weight, decoder.embed_tokens.weight.float())


def test_a_tokenizer_that_is_only_written_differently_is_the_same(make, tmp_path):
    source, target = make("small", 352), make("large", 384)
    content = json.loads((source / "tokenizer.json").read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 9,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (source / "tokenizer.json").write_text(json.dumps(content, indent=4))

    import_draft(source, tmp_path / "out", target=target)


def lowercasing() -> Tokenizer:
    made = tokenizer()
    made.normalizer = normalizers.Lowercase()
    return made


def with_another_token() -> Tokenizer:
    made = tokenizer()
    made.add_special_tokens(["<end>"])
    return made


@pytest.mark.parametrize(
    ("words", "part"),
    [(tokenizer("other"), "model"), (lowercasing(), "normalizer"), (with_another_token(), "added")],
)
def test_another_tokenizer_is_refused(make, tmp_path, words, part):
    source, target = make("small", 352, words=words), make("large", 384)

    with pytest.raises(
        CheckpointError, match=rf"small/tokenizer\.json .*large/.* differ in {part}"
    ):
        import_draft(source, tmp_path / "out", target=target)

    assert not (tmp_path / "out").exists()


def drop_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def drop_all(folder: Path) -> None:
    shutil.rmtree(folder)


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def drop_a_tensor(folder: Path) -> None:
    save_file({"model.norm.weight": torch.ones(32)}, folder / "model.safetensors")


def become_another_architecture(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "mamba"}))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (drop_all, "it is not a folder"),
        (drop_tokenizer, "has no tokenizer.json"),
        (drop_weights, "neither model.safetensors nor model.safetensors.index.json"),
        (drop_a_tensor, "do not fit its config.json; tensors missing: lm_head.weight"),
        (become_another_architecture, "model_type is 'mamba': allowed is one of llama"),
    ],
)
def test_an_unfit_folder_is_refused_by_name_and_reason(make, tmp_path, harm, reason):
    source, target = make("small", 352), make("large", 384)
    harm(source)

    with pytest.raises(CheckpointError) as refusal:
        import_draft(source, tmp_path / "out", target=target)

    assert str(source) in str(refusal.value)
    assert reason in str(refusal.value)


def test_fewer_rows_than_tokens_are_refused(make, tmp_path):
    source, target = make("small", 300), make("large", 384)
    with pytest.raises(CheckpointError, match=r"vocab_size in .*config\.json is 300.* the 320"):
        import_draft(source, tmp_path / "out", target=target)


def test_a_checkpoint_is_imported_for_another_target_with_its_tokenizer(make, tmp_path):
    first, second = make("large", 384), make("huge target", 384)
    folder, _ = import_draft(make("small", 352), tmp_path / "out", target=first)

    moved, manifest = import_draft(folder, tmp_path / "out", target=second)

    assert manifest.target_digest == target_identity(second).digest
    load_draft(moved, target=target_identity(second), dtype=torch.float32)
    third = make("third", 384, words=tokenizer("other"))
    with pytest.raises(CheckpointError, match="trained for tokenizer"):
        import_draft(folder, tmp_path / "out", target=third)


def test_a_draft_that_is_there_for_another_target_is_not_taken_for_this_one(make, tmp_path):
    source = make("small", 352)
    import_draft(source, tmp_path / "out", target=make("large", 384))
    with pytest.raises(ConflictError, match="import it into another folder"):
        import_draft(source, tmp_path / "out", target=make("huge target", 384))


def drafts_import(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aurora_client", "drafts", "import", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_says_what_to_put_into_the_manifest(make, tmp_path):
    source, target = make("small", 352), make("large", 384)

    ended = drafts_import(source.as_uri(), "--target", target, "--out", tmp_path / "out")

    assert ended.returncode == 0, ended.stderr
    (folder,) = (tmp_path / "out").iterdir()
    manifest = json.loads((folder / "aurora.json").read_text())
    assert ended.stdout == (
        f'initialCheckpoint: {{uri: "{folder.as_uri()}", digest: "{manifest["digest"]}"}}\n'
    )


@pytest.mark.parametrize("kind", ["Standalone", "Eagle3"])
def test_the_command_makes_a_draft_to_begin_with(make, tmp_path, kind):
    target = make("large", 384)
    command = [sys.executable, "-m", "aurora_client", "drafts", "new", "--kind", kind]
    made = [
        subprocess.run(
            [*command, "--target", target, "--out", tmp_path / out],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for out in ("one", "other")
    ]
    [folder] = (tmp_path / "one").iterdir()
    draft, manifest = load_draft(folder, target=target_identity(target), dtype=torch.float32)
    assert (manifest.kind, draft.kind) == (kind.lower(), kind.lower())
    assert manifest.digest in made[0]
    assert manifest.digest in made[1]


def test_the_command_refuses_a_store_that_there_is_not(make, tmp_path):
    ended = drafts_import("hf://org/model", "--target", make("large", 384), "--out", tmp_path)

    assert ended.returncode == 1
    assert ended.stderr == (
        "aurora drafts import: no model store serves 'hf://org/model'; served are file://\n"
    )
