"""Draft checkpoints are whole and fit, or refused by name and reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aurora_common.checkpoint import folder_digest, verified_manifest
from aurora_common.errors import CheckpointError
from aurora_model.config import DecoderConfig
from aurora_model.decoder import Decoder
from aurora_model.draft import load_draft, publish_draft, random_draft, small_draft_config
from aurora_model.target import TargetIdentity
from aurora_model.weights import save_decoder

WEIGHTS = "model.safetensors"


@pytest.fixture
def published(draft: Decoder, root: Path, target: TargetIdentity) -> Path:
    path, _ = publish_draft(draft, root, name="ckpt-4", target=target)
    return path


def forge(folder: Path) -> None:
    """Lets the manifest speak of the files as they are, as an attacker or a buggy writer would."""
    manifest = json.loads((folder / "aurora.json").read_bytes())
    manifest["digest"] = folder_digest(folder)
    (folder / "aurora.json").write_text(json.dumps(manifest))


def refusal(folder: Path, target: TargetIdentity, digest: str = "") -> str:
    with pytest.raises(CheckpointError) as error:
        load_draft(folder, digest=digest, target=target, dtype=torch.float32)
    assert folder.name in str(error.value)
    return str(error.value)


def test_what_is_published_is_what_is_loaded(draft: Decoder, root: Path, target: TargetIdentity):
    path, manifest = publish_draft(
        draft,
        root,
        name="ckpt-4",
        target=target,
        parent_digest="sha256:parent",
        objective="LK",
        trained_from="1-0",
        trained_through="9-0",
        created_at_ms=17,
        metrics={"acceptance": 0.5},
    )

    decoder, loaded = load_draft(path, digest=manifest.digest, target=target, dtype=torch.float32)

    assert path == root / f"ckpt-4-{manifest.digest.removeprefix('sha256:')[:12]}"
    assert loaded == manifest
    assert (loaded.name, loaded.parent_digest, loaded.objective) == (
        path.name,
        "sha256:parent",
        "LK",
    )
    assert (loaded.trained_from, loaded.trained_through, loaded.created_at_ms) == ("1-0", "9-0", 17)
    assert loaded.metrics == {"acceptance": 0.5}
    for name, weight in draft.state_dict().items():
        assert torch.equal(decoder.state_dict()[name], weight)


def test_publishing_the_same_again_leaves_what_is_there(
    draft: Decoder, published: Path, target: TargetIdentity
):
    before = (published / "aurora.json").read_bytes()

    path, manifest = publish_draft(
        draft, published.parent, name="ckpt-4", target=target, created_at_ms=99
    )

    assert (path, manifest.created_at_ms) == (published, 0)
    assert (published / "aurora.json").read_bytes() == before
    assert list(published.parent.iterdir()) == [published]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_not_published(
    draft: Decoder, root: Path, target: TargetIdentity, value
):
    with torch.no_grad():
        draft.layers[1].mlp.down_proj.weight[3, 5] = value

    with pytest.raises(CheckpointError, match=r"ckpt-4 .* layers\.1\.mlp\.down_proj\.weight"):
        publish_draft(draft, root, name="ckpt-4", target=target)

    assert not root.exists()


def test_a_larger_vocabulary_is_not_published(draft: Decoder, root: Path, target: TargetIdentity):
    with pytest.raises(CheckpointError, match="vocabulary has 97 tokens, the target's 96"):
        publish_draft(draft, root, name="ckpt-4", target=replace(target, vocab_size=96))


@pytest.mark.parametrize("tied", [True, False])
def test_padding_that_the_target_lacks_is_dropped(
    config: DecoderConfig, models, root: Path, target: TargetIdentity, tied
):
    padded = replace(config, tie_word_embeddings=tied, bos_token_id=1, eos_token_ids=(2, 95))
    draft = random_draft(padded, seed=1)
    path, _ = publish_draft(draft, root, name="ckpt-4", target=target)

    narrow = replace(target, vocab_size=90)
    loaded, _ = load_draft(path, target=narrow, dtype=torch.float32)

    tokens = models.tokens() % 90
    expected = models.logits(draft, tokens)[..., :90]
    torch.testing.assert_close(models.logits(loaded, tokens), expected, rtol=0, atol=1e-6)
    assert loaded.config == replace(padded, vocab_size=90, eos_token_ids=(2,))
    assert (loaded.lm_head.weight is loaded.embed_tokens.weight) == tied
    # What training makes of it is a checkpoint again.
    again, _ = publish_draft(loaded, root, name="ckpt-5", target=narrow)
    assert load_draft(again, target=narrow, dtype=torch.float32)[0].config == loaded.config


def test_a_draft_with_fewer_tokens_than_the_target_is_loaded_as_it_is(
    published: Path, draft: Decoder, target: TargetIdentity
):
    loaded, _ = load_draft(published, target=replace(target, vocab_size=128), dtype=torch.float32)
    assert loaded.config == draft.config


@pytest.mark.parametrize("place", [0.01, 0.5, 0.999])
def test_a_flipped_bit_is_refused(published: Path, target: TargetIdentity, place):
    content = bytearray((published / WEIGHTS).read_bytes())
    content[int(place * len(content))] ^= 1
    (published / WEIGHTS).write_bytes(content)

    assert "has digest" in refusal(published, target)


def test_another_digest_than_the_caller_expects_is_refused(published: Path, target: TargetIdentity):
    assert "the caller says sha256:other" in refusal(published, target, "sha256:other")


@pytest.mark.parametrize("name", ["aurora.json", "config.json", WEIGHTS])
def test_a_missing_file_is_refused(published: Path, target: TargetIdentity, name):
    (published / name).unlink()

    refusal(published, target)


def test_a_missing_checkpoint_is_refused(published: Path, target: TargetIdentity):
    assert "No such file" in refusal(published.with_name("ckpt-9-gone"), target)


def set_nan(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"][2] = float("nan")
    save_file(tensors, folder / WEIGHTS)


def narrow(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()
    save_file(tensors, folder / WEIGHTS)


def truncate(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def enlarge_vocabulary(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["vocab_size"] = 98
    (folder / "config.json").write_text(json.dumps(config))


def become_another_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["model_type"] = "mamba"
    (folder / "config.json").write_text(json.dumps(config))


def drop_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (set_nan, "its weights are not finite: norm.weight"),
        (narrow, "of another shape: model.norm.weight [31], not [32]"),
        (truncate, "cannot read the weights"),
        (enlarge_vocabulary, "of another shape: model.embed_tokens.weight [97, 32], not [98, 32]"),
        (become_another_architecture, "model_type is 'mamba'"),
        (drop_config, "cannot read"),
    ],
)
def test_a_checkpoint_that_matches_its_digest_is_still_checked(
    published: Path, target: TargetIdentity, harm: Callable[[Path], None], reason: str
):
    harm(published)
    forge(published)

    assert reason in refusal(published, target)


def test_another_target_or_tokenizer_is_refused(published: Path, target: TargetIdentity):
    other = replace(target, digest="sha256:other")
    complaint = refusal(published, other)
    assert "trained for target sha256:target, this one is sha256:other" in complaint
    assert "`aurora drafts import`" in complaint

    other = replace(target, tokenizer_digest="sha256:other")
    assert "trained for tokenizer sha256:tokenizer" in refusal(published, other)


@pytest.mark.parametrize("room", ["tmpfs", "limit"])
def test_a_full_disk_leaves_nothing_and_says_so(root: Path, room: str):
    root.mkdir()

    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("full_disk.py"), room, root],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    if ended.returncode == 77:
        pytest.skip("may not mount a tmpfs here")
    assert ended.stdout == "StorageError []\n", ended.stderr


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_no_half_checkpoint(root: Path, target: TargetIdentity):
    root.mkdir()

    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_publish.py"), root],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    # It opens, writes, renames: a publication that can be killed at few places was not observed.
    assert int(ended.stdout) > 10
    listed = [path for path in root.iterdir() if not path.name.startswith(".")]
    assert listed
    for path in listed:
        assert verified_manifest(path).name == path.name
        load_draft(path, target=target, dtype=torch.float32)


def test_random_drafts_are_the_same_for_the_same_seed(config: DecoderConfig):
    first, again, other = (random_draft(config, seed) for seed in (1, 1, 2))

    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_a_random_draft_starts_near_the_uniform_distribution(models, config: DecoderConfig):
    draft = random_draft(config, seed=3)
    tokens = models.tokens()

    loss = torch.nn.functional.cross_entropy(
        models.logits(draft, tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    )

    assert loss.item() == pytest.approx(torch.tensor(97.0).log().item(), abs=0.1)


@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 2), (6, 6), (6, 2), (1, 1), (12, 4), (7, 7)])
def test_a_small_draft_fits_its_target(
    config: DecoderConfig, models, tmp_path: Path, heads, kv_heads
):
    target = replace(config, hidden_size=8 * heads, num_heads=heads, num_kv_heads=kv_heads)

    small = small_draft_config(target)
    draft = random_draft(small, seed=0)

    assert (small.vocab_size, small.num_layers) == (target.vocab_size, 1)
    save_decoder(draft, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path)
    expected = models.reference_logits(reference, models.tokens())
    assert (models.logits(draft, models.tokens()) - expected).abs().max() <= 1e-4


def test_the_manifest_names_the_kind_and_its_absence_is_standalone(
    published: Path, target: TargetIdentity
):
    manifest = json.loads((published / "aurora.json").read_bytes())
    assert manifest.pop("kind") == "standalone"
    (published / "aurora.json").write_text(json.dumps(manifest))

    draft, loaded = load_draft(published, target=target, dtype=torch.float32)

    assert loaded.kind == draft.kind == "standalone"


def test_an_unknown_kind_is_refused_with_the_kinds_supported(
    published: Path, target: TargetIdentity
):
    manifest = json.loads((published / "aurora.json").read_bytes())
    (published / "aurora.json").write_text(json.dumps({**manifest, "kind": "psychic"}))

    assert "draft kind is 'psychic': supported is eagle3, standalone" in refusal(published, target)
