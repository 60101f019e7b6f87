"""The demo with a kind of draft that reads the target's hidden states."""

import io
from dataclasses import replace

import torch
from rich.console import Console

from aurora_demo import head
from aurora_demo.deployment import manifest
from aurora_demo.head import HEAD_TRAINING, with_head
from aurora_demo.models import parameter_count
from aurora_demo.progress import TrainingProgress
from aurora_model.draft import Eagle3Draft, load_draft
from aurora_model.target import target_identity
from aurora_operator.domain.manifest.parser import deployment_from_object

TEXT = ["def walk(top):\n    yield from sorted(top)\n" * 9]
TRAINING = replace(HEAD_TRAINING, steps=2, windows=2, window_tokens=8)


def prepared(models, *, text=TEXT):
    console = Console(file=io.StringIO(), width=200)
    return with_head(models, "Eagle3", text, TrainingProgress(console), TRAINING)


def test_a_head_takes_the_drafts_place_in_the_manifest(models):
    found = prepared(models)

    loaded, _ = load_draft(
        found.draft,
        digest=found.draft_digest,
        target=target_identity(models.target),
        dtype=torch.float32,
    )
    assert isinstance(loaded, Eagle3Draft)
    assert parameter_count(found.draft) == sum(each.numel() for each in loaded.parameters())
    # Checked as `aurora up` does.
    spec = deployment_from_object(manifest("adapted", found)).spec
    assert (spec.draft.kind, spec.trainer.targets) == ("Eagle3", "Recompute")


def test_a_second_run_trains_nothing_unless_the_text_is_another(models, monkeypatch):
    first = prepared(models)
    with monkeypatch.context() as patch:
        patch.delattr(head, "Learner")
        assert prepared(models) == first
    assert prepared(models, text=["import os\n" * 40]).draft != first.draft
