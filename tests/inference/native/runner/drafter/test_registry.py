"""A checkpoint is served by the drafter for its kind."""

from __future__ import annotations

import json

import pytest
import torch

from aurora_common.checkpoint import MANIFEST
from aurora_common.errors import CheckpointError
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.drafter import DrafterRoom
from aurora_inference.native.runner.drafter.registry import DRAFT_KINDS, load_drafter
from aurora_inference.native.runner.drafter.standalone import StandaloneDrafter
from aurora_model.draft import StandaloneDraft, publish_draft


@pytest.fixture
def checkpoint(model_folders, target, tmp_path):
    draft = StandaloneDraft.load(model_folders["random"], dtype=torch.float32, device="cpu")
    folder, _ = publish_draft(draft, tmp_path, name="draft", target=target.identity)
    return folder


@pytest.fixture
def load(target):
    def loaded(folder, digest=""):
        room = DrafterRoom(rows=1, capacity=16, device=Cpu())
        return load_drafter(folder, digest=digest, target=target, room=room)

    return loaded


def test_a_standalone_checkpoint_gets_the_standalone_drafter(checkpoint, load):
    drafter = load(checkpoint)
    assert isinstance(drafter, StandaloneDrafter)
    assert drafter.name == checkpoint.name
    assert "standalone" in DRAFT_KINDS


def test_an_unknown_kind_is_refused_by_name(checkpoint, load):
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps(manifest | {"kind": "eagle9"}))
    with pytest.raises(CheckpointError, match="'eagle9'; this engine supports standalone, eagle3"):
        load(checkpoint)


def test_a_folder_without_a_manifest_is_refused(tmp_path, load):
    with pytest.raises(CheckpointError, match="is refused: cannot read"):
        load(tmp_path)
