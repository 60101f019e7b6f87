"""The state file is loaded exactly as saved, or refused."""

from __future__ import annotations

import dataclasses
import io
import resource
import zipfile

import numpy as np
import pytest
import torch

from aurora_common.errors import StorageError
from aurora_model.draft import random_draft, small_draft_config
from aurora_trainer.data.replay import Replay, ReplayLimits, SeatDraw
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.progress import Progress
from aurora_trainer.state import State, load_state, save_state
from aurora_trainer.verdict import Verdict

LIMITS = ReplayLimits(window_count=20, reservoir_count=4, holdout_percent=20)


@pytest.fixture
def state(target, make_samples) -> State:
    samples = make_samples(40) + make_samples(10, seed=1, domain="b")
    learner = Learner(
        random_draft(small_draft_config(target.decoder.config), seed=1),
        LearnerSettings("LK", learning_rate=1e-3),
    )
    learner.step(samples)
    replay = Replay(LIMITS)
    for sample, draw in zip(samples, np.random.default_rng(0).random((50, 2)), strict=True):
        replay.add(sample, SeatDraw(*draw))
    return State(
        target_digest=target.identity.digest,
        tokenizer_digest=target.identity.tokenizer_digest,
        draft_kind=learner.draft.kind,
        draft_config=learner.draft.config_content(),
        learner=learner.state(),
        progress=Progress(trajectories=50, position="1001-9", loss=0.5),
        seen=("1000-0", "1001-9"),
        replay=replay,
        verdicts=(
            Verdict("chat-1", "sha256:b", "RolledBack", "CrashHarm", -20, None, 7),
            Verdict("chat-2", "sha256:c", "Promoted", "ReplayBetter", 120, 150, 9),
        ),
    )


def contents(samples):
    return [
        (
            s.stream_id,
            s.request_id,
            s.domain,
            s.tokens.tolist(),
            s.top_ids.tolist(),
            s.log_probs.tolist(),
            s.tail_mass.tolist(),
        )
        for s in samples
    ]


def test_what_is_loaded_is_what_was_saved(tmp_path, state):
    save_state(tmp_path / "state.pt", state)
    loaded = load_state(tmp_path / "state.pt", LIMITS)
    assert (loaded.draft_kind, loaded.draft_config) == (state.draft_kind, state.draft_config)
    for name in ("target_digest", "tokenizer_digest", "progress", "seen", "verdicts"):
        assert getattr(loaded, name) == getattr(state, name)
    for name, tensor in state.learner["average"].items():
        torch.testing.assert_close(loaded.learner["average"][name], tensor, rtol=0, atol=0)
    assert contents(loaded.replay.samples()) == contents(state.replay.samples())
    assert {
        d: (r.capacity, r.offered, r.size_bytes) for d, r in loaded.replay.reservoirs.items()
    } == {d: (r.capacity, r.offered, r.size_bytes) for d, r in state.replay.reservoirs.items()}
    assert loaded.replay.window.size_bytes == state.replay.window.size_bytes


def test_a_state_without_trajectories_loads(tmp_path, state):
    save_state(tmp_path / "state.pt", dataclasses.replace(state, replay=Replay(LIMITS)))
    assert list(load_state(tmp_path / "state.pt", LIMITS).replay.samples()) == []


def test_no_file_is_no_state(tmp_path):
    assert load_state(tmp_path / "state.pt", LIMITS) is None


def _flipped(content: bytes) -> bytes:
    # Within a tensor: between the archive's members lies padding, which no checksum covers.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        data = archive.read(max(archive.infolist(), key=lambda each: each.file_size))
    middle = content.index(data) + len(data) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: b"garbage" * 99, _flipped],
    ids=["empty", "cut off", "garbage", "one byte flipped"],
)
def test_a_damaged_file_is_refused_by_name_with_the_way_out(tmp_path, state, damage):
    path = tmp_path / "state.pt"
    save_state(path, state)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StorageError, match=r"state\.pt.*Move it away to begin again"):
        load_state(path, LIMITS)


def test_a_file_of_another_format_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "state.pt")
    with pytest.raises(StorageError, match="format 99"):
        load_state(tmp_path / "state.pt", LIMITS)


def test_a_failed_write_leaves_the_file_unchanged(tmp_path, state):
    path = tmp_path / "state.pt"
    save_state(path, state)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"state\.pt"):
            save_state(path, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["state.pt"]


def test_a_state_that_names_no_kind_is_a_standalone_drafts(tmp_path, state):
    path = tmp_path / "state.pt"
    save_state(path, state)
    content = torch.load(path, weights_only=True)
    del content["draft_kind"]
    torch.save(content, path)
    assert load_state(path, LIMITS).draft_kind == "standalone"
