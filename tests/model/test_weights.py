"""Reading and writing safetensors under Hugging Face's names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from aurora_common.errors import CheckpointError, StorageError
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder
from aurora_model.weights import load_decoder, save_decoder

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(draft: Decoder, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    save_decoder(draft, path)
    return path


def rewrite(folder: Path, changes: dict[str, Tensor], *, without: tuple[str, ...] = ()) -> None:
    tensors = {**load_file(folder / WEIGHTS), **changes}
    for name in without:
        del tensors[name]
    save_file(tensors, folder / WEIGHTS)


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_decoder(folder, dtype=torch.float32)
    assert str(folder) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_shards_of_transformers_are_read(models, tmp_path: Path, family):
    reference = models.reference(family)
    reference.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2

    decoder = load_decoder(tmp_path, dtype=torch.float32)

    expected = models.reference_logits(reference, models.tokens())
    assert (models.logits(decoder, models.tokens()) - expected).abs().max() <= 1e-4


def test_weights_survive_writing_and_reading(draft: Decoder, folder: Path):
    again = load_decoder(folder, dtype=torch.float32)

    for name, weight in draft.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_weights_are_stored_under_hugging_face_names(folder: Path):
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = set(file.keys())

    assert "model.layers.1.self_attn.k_proj.weight" in names
    assert "model.layers.0.mlp.gate_proj.weight" in names
    assert not any("qkv" in name or "gate_up" in name for name in names)


def test_weights_are_readable_by_other_users(folder: Path):
    assert (folder / WEIGHTS).stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loading_casts_to_the_requested_dtype(folder: Path, dtype):
    decoder = load_decoder(folder, dtype=dtype)

    assert {parameter.dtype for parameter in decoder.parameters()} == {dtype}


def test_loaded_weights_do_not_follow_the_file(folder: Path, models):
    decoder = load_decoder(folder, dtype=torch.float32)
    expected = models.logits(decoder, models.tokens())

    with (folder / WEIGHTS).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size // 2)
        file.write(b"\0" * (size // 2))

    assert torch.equal(models.logits(decoder, models.tokens()), expected)


def test_loading_reports_how_much_is_done(folder: Path, monkeypatch, caplog):
    monkeypatch.setattr("aurora_model.weights._REPORT_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        load_decoder(folder, dtype=torch.float32)
    told = [record.fields["progress"] for record in caplog.records]
    total = (folder / WEIGHTS).stat().st_size / 1e9
    assert len(told) > 1
    assert all(line.startswith("loading weights: ") for line in told)
    assert all(line.endswith(f" of {total:.1f} GB") for line in told)


def test_missing_unexpected_and_misshapen_tensors_are_named_together(folder: Path):
    rewrite(
        folder,
        {
            "model.layers.0.self_attn.q_proj.bias": torch.zeros(32),
            "model.norm.weight": torch.ones(31),
        },
        without=("model.layers.1.mlp.up_proj.weight",),
    )

    message = refusal(folder)

    assert "missing: model.layers.1.mlp.up_proj.weight" in message
    assert "unexpected: model.layers.0.self_attn.q_proj.bias" in message
    assert "of another shape: model.norm.weight [31], not [32]" in message


def test_a_long_list_of_tensors_is_cut(folder: Path):
    rewrite(folder, {f"extra.{index:02}": torch.zeros(1) for index in range(20)})

    message = refusal(folder)

    assert "extra.07 and 12 more" in message
    assert "extra.08" not in message


def test_rotary_frequencies_of_old_llama_files_are_ignored(folder: Path):
    rewrite(folder, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})

    assert load_decoder(folder, dtype=torch.float32).config.num_layers == 2


def test_a_stored_head_of_a_tied_model_is_ignored(models, tmp_path: Path):
    reference = models.reference("llama", tie_word_embeddings=True)
    reference.save_pretrained(tmp_path)
    rewrite(tmp_path, {"lm_head.weight": torch.full((models.vocab_size, 48), 9.0)})

    decoder = load_decoder(tmp_path, dtype=torch.float32)

    assert torch.equal(decoder.lm_head.weight, reference.model.embed_tokens.weight)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_files_are_refused(folder: Path, kept):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:kept])

    assert "cannot read the weights" in refusal(folder)


def test_a_folder_without_weights_is_refused(folder: Path):
    (folder / WEIGHTS).unlink()

    assert f"neither {WEIGHTS} nor {INDEX}" in refusal(folder)


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ("{", "is not an index"),
        ("[]", "is not an index"),
        ('{"weight_map": {"a": 3}}', "names 3, which is not a file beside it"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "not a file beside it"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors, which is missing"),
    ],
)
def test_a_malformed_index_is_refused(folder: Path, index, complaint):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(index)

    assert complaint in refusal(folder)


def test_config_names_the_dtype(draft: Decoder, tmp_path: Path):
    save_decoder(draft.to(torch.bfloat16), tmp_path)

    assert json.loads((tmp_path / "config.json").read_bytes())["dtype"] == "bfloat16"


def test_a_folder_that_cannot_be_written_is_named(config: DecoderConfig, tmp_path: Path):
    with pytest.raises(StorageError, match="gone"):
        save_decoder(Decoder(config), tmp_path / "gone")
