"""The quick start's models have fixed names, wherever their folder is mounted."""

from dataclasses import replace
from pathlib import Path

import pytest

from aurora_demo.models import DemoModels
from aurora_demo.quickstart import linked


@pytest.fixture
def models(tmp_path) -> DemoModels:
    for name in ("target", "draft-1", "draft-2"):
        (tmp_path / "demo/1a2b" / name).mkdir(parents=True)
    return DemoModels(
        target=tmp_path / "demo/1a2b/target",
        draft=tmp_path / "demo/1a2b/draft-1",
        draft_digest="sha256:" + "0" * 64,
        target_dtype="float32",
        hyperparameters={},
    )


def test_the_links_stay_right_at_another_place(models, tmp_path):
    linked(models, tmp_path)
    moved = tmp_path.rename(tmp_path.with_name("moved"))

    assert (moved / "target").resolve() == moved / "demo/1a2b/target"
    assert (moved / "draft").resolve() == moved / "demo/1a2b/draft-1"
    assert not (moved / "target").readlink().is_absolute()


def test_a_second_run_replaces_the_links(models, tmp_path: Path):
    linked(models, tmp_path)
    target, draft = linked(replace(models, draft=tmp_path / "demo/1a2b/draft-2"), tmp_path)

    assert target.resolve() == models.target
    assert draft.resolve().name == "draft-2"
