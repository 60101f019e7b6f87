import json

import pytest

from aurora.trainer.v1 import trainer_pb2
from aurora_common.errors import InvalidInputError
from aurora_model.config import parse_config
from aurora_model.draft import publish_draft, random_draft, small_draft_config
from aurora_trainer.servicer import TrainerServicer


@pytest.fixture
def published(tmp_path, target_folder, identity):
    """Five checkpoints in a folder: their digests, oldest first."""
    content = json.loads((target_folder / "config.json").read_text())
    config = small_draft_config(parse_config(content, source="test"))
    return [
        publish_draft(
            random_draft(config, sequence), tmp_path, name=f"ckpt-{sequence}", target=identity
        )[1].digest
        for sequence in range(1, 6)
    ]


async def prune(models, **fields):
    servicer = TrainerServicer(models, standing=lambda: None)
    request = trainer_pb2.PruneCheckpointsRequest(**fields)
    response = await servicer.PruneCheckpoints(request, None)
    return sorted(int(name.split("-")[1]) for name in response.removed)


async def test_prunes_unneeded_checkpoints_once(tmp_path, published):
    asked = {"keep": 2, "seen_sequence": 5, "needed_digests": [published[0]]}
    assert await prune(tmp_path, **asked) == [2, 3]
    assert await prune(tmp_path, **asked) == []


async def test_keeps_checkpoints_not_seen_yet(tmp_path, published):
    assert await prune(tmp_path, keep=1, seen_sequence=2) == [1, 2]


async def test_keeps_at_least_one(tmp_path):
    with pytest.raises(InvalidInputError, match="keep is 0"):
        await prune(tmp_path, keep=0)
