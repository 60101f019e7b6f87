"""The cache of the demo's models: built once, complete, loadable by transformers."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from aurora_common.checkpoint import folder_digest
from aurora_common.errors import CheckpointError, StorageError
from aurora_demo import models
from aurora_demo.models import CACHE_VARIABLE, cache_root, prepared_models
from aurora_demo.progress import TrainingProgress
from aurora_demo.recipe import RECIPE, Schedule, Shape
from aurora_model.decoder import causal_attend
from aurora_model.draft import load_draft
from aurora_model.target import target_identity
from aurora_model.weights import load_decoder

FEW = Schedule(steps=6, learning_rate=2e-3, warmup_steps=2, decay_fraction=0.4)
TINY = replace(
    RECIPE,
    vocabulary_size=300,
    target=Shape(hidden_size=32, intermediate_size=48, layers=4, heads=4, kv_heads=2),
    draft=Shape(hidden_size=16, intermediate_size=24, layers=1, heads=2, kv_heads=1),
    target_training=replace(RECIPE.target_training, schedule=FEW, shallow_steps=4),
    draft_training=replace(RECIPE.draft_training, text=FEW, distillation=FEW, windows=2),
    window_tokens=16,
)
DOCUMENTS = {
    "python": ["def walk(top):\n    yield from sorted(top)\n" * 9],
    "logs": ['{"level":"info","ms":12}\n' * 9],
    "sql": ["db=> SELECT id FROM products;\n" * 9],
}


def prepared(root, *, recipe=TINY, output=None):
    console = Console(file=output or io.StringIO(), force_terminal=False, width=200)
    return prepared_models(recipe, DOCUMENTS, root, TrainingProgress(console))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    output = io.StringIO()
    return root, prepared(root, output=output), output.getvalue()


def test_transformers_loads_the_target_and_computes_the_same(built):
    _, found, _ = built
    tokenizer = AutoTokenizer.from_pretrained(found.target)
    tokens = torch.tensor([tokenizer.encode(DOCUMENTS["python"][0])[:24]])
    assert tokens.tolist() == [found.vocabulary().encode(DOCUMENTS["python"][0])[:24]]
    theirs = AutoModelForCausalLM.from_pretrained(found.target, dtype=torch.float32)
    ours = load_decoder(found.target, dtype=torch.float32)
    with torch.no_grad():
        logits = ours.logits(ours(tokens, torch.arange(24)[None], causal_attend))
        torch.testing.assert_close(theirs(tokens).logits, logits, atol=1e-4, rtol=0)


def test_text_survives_the_tokenizer(built):
    _, found, _ = built
    text = "naïve\n\tdef f(): return '→' # 12"
    vocabulary = found.vocabulary()
    assert vocabulary.decode(vocabulary.encode(text)) == text
    tokenizer = AutoTokenizer.from_pretrained(found.target)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token_id == 0


def test_the_draft_is_a_checkpoint_for_this_target(built):
    _, found, _ = built
    draft, manifest = load_draft(
        found.draft,
        digest=found.draft_digest,
        target=target_identity(found.target),
        dtype=torch.float32,
    )
    assert draft.config.num_layers == 1
    assert manifest.name == found.draft.name
    AutoModelForCausalLM.from_pretrained(found.draft)


def test_progress_is_printed_as_plain_lines_without_a_terminal(built):
    lines = built[2].splitlines()
    assert 3 < len(lines) <= 10
    assert "target, 2 layers, 10%, about" in lines[0]
    assert lines[-1].endswith("draft, on the target's distributions, 100%, about 0 s left")


def test_a_second_run_trains_nothing(built, monkeypatch):
    root, found, _ = built
    monkeypatch.delattr(models, "trained_target")
    monkeypatch.delattr(models, "trained_draft")
    assert prepared(root) == found


def test_the_target_has_a_chat_template_in_which_every_message_is(built):
    tokenizer = AutoTokenizer.from_pretrained(built[1].target)
    messages = [
        {"role": "system", "content": "-- sql"},
        {"role": "user", "content": "db=> SELECT"},
        {"role": "assistant", "content": "id;"},
        {"role": "user", "content": "db=>"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "-- sql\ndb=> SELECT\nid;\ndb=>"


@pytest.fixture
def former(tmp_path):
    """The models as the recipe's first version left them."""
    made = prepared(tmp_path, recipe=replace(TINY, version=1))
    (made.target / "chat_template.jinja").unlink()
    manifest = json.loads((made.draft / "aurora.json").read_text())
    manifest["target_digest"] = folder_digest(made.target)
    (made.draft / "aurora.json").write_text(json.dumps(manifest))
    return made


def test_models_without_the_template_are_copied_and_left_alone(former, tmp_path, monkeypatch):
    before = folder_digest(former.target)
    monkeypatch.delattr(models, "trained_target")
    monkeypatch.delattr(models, "trained_draft")

    found = prepared(tmp_path)

    assert found.target != former.target
    assert found.draft_digest == former.draft_digest
    assert AutoTokenizer.from_pretrained(found.target).chat_template is not None
    load_draft(found.draft, target=target_identity(found.target), dtype=torch.float32)
    assert folder_digest(former.target) == before


def test_damaged_models_without_the_template_are_trained_anew(former, tmp_path):
    (former.draft / "model.safetensors").write_bytes(b"damaged")

    assert prepared(tmp_path).draft_digest == former.draft_digest


def test_an_interrupted_run_reuses_the_target_that_it_finished(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(models, "trained_draft", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path)
    monkeypatch.delattr(models, "trained_target")
    assert prepared(tmp_path).draft.is_dir()


def test_another_recipe_and_other_text_have_other_names():
    names = {
        TINY.digest(["a", "b"]),
        TINY.digest(["a", "c"]),
        TINY.digest(["ab"]),
        replace(TINY, seed=1).digest(["a", "b"]),
    }
    assert len(names) == 4


def test_the_same_recipe_gives_the_same_models(built, tmp_path):
    assert prepared(tmp_path).draft_digest == built[1].draft_digest


def test_an_unwritable_cache_is_reported_before_any_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.delattr(models, "trained_target")
    with pytest.raises(StorageError, match=rf"cannot keep the demo's models in .*{CACHE_VARIABLE}"):
        prepared(tmp_path / "file")


def test_a_damaged_target_is_reported(tmp_path):
    weights = prepared(tmp_path).target / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="are damaged; remove that folder"):
        prepared(tmp_path)


def test_the_environment_names_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(cache_root()) == "/home/somebody/.cache/aurora"
