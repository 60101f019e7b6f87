"""Every move of a trainer's progress."""

from __future__ import annotations

import pytest

from aurora_common.stream_id import stream_order
from aurora_trainer.control.control import Control
from aurora_trainer.control.plateau import Plateau
from aurora_trainer.data.seen import SeenIds
from aurora_trainer.progress import (
    Progress,
    Trigger,
    round_is_due,
    with_checkpoint,
    with_parent,
    with_round_begun,
    with_round_ended,
    with_skipped,
    with_step,
    with_trajectory,
)

TRIGGER = Trigger(min_new_trajectories=10, min_interval_seconds=5)
CHANGED = Control(changed=True)
PAUSED = Control(plateau=Plateau(fruitless=2, trajectories=100))


@pytest.mark.parametrize(
    ("progress", "now_ms", "due"),
    [
        (Progress(new_trajectories=9), 10**6, False),
        (Progress(new_trajectories=10), 10**6, True),
        (Progress(new_trajectories=10, round_ended_at_ms=10**6 - 4999), 10**6, False),
        (Progress(new_trajectories=10, round_ended_at_ms=10**6 - 5000), 10**6, True),
        # The clock was set back.
        (Progress(new_trajectories=10, round_ended_at_ms=10**7), 10**6, True),
        # After a change of traffic.
        (Progress(new_trajectories=10, round_ended_at_ms=10**6, control=CHANGED), 10**6, True),
        (Progress(new_trajectories=9, control=CHANGED), 10**6, False),
        # Paused.
        (Progress(new_trajectories=10, trajectories=150, control=PAUSED), 10**6, False),
        (Progress(new_trajectories=10, trajectories=200, control=PAUSED), 10**6, True),
        (Progress(new_trajectories=10, phase="Training"), 10**6, False),
        (Progress(new_trajectories=10, phase="Publishing"), 10**6, False),
    ],
)
def test_a_round_is_due_by_count_and_time(progress, now_ms, due):
    assert round_is_due(progress, TRIGGER, now_ms=now_ms) is due


def test_sixteen_trajectories_are_enough_after_a_change():
    trigger = Trigger(min_new_trajectories=500, min_interval_seconds=600)
    for count, due in ((15, False), (16, True)):
        progress = Progress(new_trajectories=count, control=CHANGED)
        assert round_is_due(progress, trigger, now_ms=10**6) is due


def test_the_range_spans_oldest_and_newest_whatever_the_order():
    progress = Progress()
    for stream_id in ("9-0", "10-2", "10-10", "8-1"):
        progress = with_trajectory(progress, stream_id)
    assert (progress.first, progress.position) == ("8-1", "10-10")
    assert (progress.trajectories, progress.new_trajectories) == (4, 4)


def test_a_round_goes_through_its_phases():
    progress = with_round_begun(Progress(new_trajectories=12), 2)
    assert (progress.phase, progress.new_trajectories) == ("Training", 0)
    progress = with_step(progress, loss=1.5, seconds=0.5)
    assert (progress.phase, progress.loss) == ("Training", 1.5)
    progress = with_step(progress, loss=None, seconds=0.5)
    assert (progress.phase, progress.loss, progress.training_seconds) == ("Publishing", 1.5, 1.0)
    progress = with_checkpoint(with_round_ended(progress, now_ms=7), sequence=3)
    progress = with_parent(progress, "sha256:x", "file:///x")
    assert progress == Progress(
        rounds=1,
        round_ended_at_ms=7,
        sequence=3,
        parent_digest="sha256:x",
        parent_uri="file:///x",
        loss=1.5,
        training_seconds=1.0,
    )


def test_skipped_trajectories_do_not_count_as_new():
    progress = with_skipped(with_skipped(Progress(), "Malformed"), "Malformed")
    assert with_skipped(progress, "Long") == Progress(
        skipped=3, skip_reasons={"Malformed": 2, "Long": 1}
    )


def test_stream_ids_are_ordered_by_number():
    ids = ["10-2", "9-30", "10-10", "", "9-4"]
    assert sorted(ids, key=stream_order) == ["", "9-4", "9-30", "10-2", "10-10"]


def test_the_oldest_ids_are_forgotten_first():
    seen = SeenIds(["1-0", "2-0"], limit=3)
    seen.add("3-0")
    seen.add("4-0")
    assert list(seen) == ["2-0", "3-0", "4-0"]
    assert "1-0" not in seen
    assert "4-0" in seen
