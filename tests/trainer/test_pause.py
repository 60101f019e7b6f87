"""Training pauses while it gains nothing, and resumes when traffic changes."""

from __future__ import annotations

import dataclasses

import pytest
from support.training import Bench

from aurora.buffer.v1 import buffer_pb2


@pytest.fixture(scope="module")
def records(make_records) -> list[buffer_pb2.Trajectory]:
    return make_records(160)


def entries(records, *, first, domain="a"):
    found = []
    for number, record in enumerate(records, first):
        served = buffer_pb2.Trajectory()
        served.CopyFrom(record)
        served.domain = domain
        served.steps.add(drafted=4, accepted=2)
        found.append(buffer_pb2.Entry(id=f"1000-{number}", trajectory=served))
    return found


@pytest.fixture
def learns_nothing(settings):
    return dataclasses.replace(settings, learning_rate=0.0)


@pytest.fixture
def paused(learns_nothing, records) -> Bench:
    """After two rounds without any gain, with more than enough for a third."""
    bench = Bench(learns_nothing)
    bench.source.entries = entries(records[:100], first=0)
    bench.turns(3)
    bench.source.entries = entries(records[100:120], first=100)
    bench.turns(3)
    bench.source.entries = entries(records[120:], first=120)
    bench.turns(3)
    return bench


def test_rounds_that_gain_nothing_end_training(paused):
    progress = paused.trainer.progress
    assert (progress.phase, progress.rounds) == ("WaitingForTrajectories", 2)
    assert progress.new_trajectories == 40
    assert progress.waiting.startswith("the last 2 rounds cost more than they gained")
    assert "after 240 trajectories" in progress.waiting


def test_a_pause_outlasts_a_restart(paused, learns_nothing):
    paused.finish()
    again = Bench(learns_nothing)
    assert again.trainer.progress == paused.trainer.progress
    again.turns(3)
    assert again.trainer.progress.rounds == 2


def test_another_domain_ends_the_pause(paused, records):
    paused.source.entries = entries(records[:20], first=200, domain="b")
    paused.turns(3)
    progress = paused.trainer.progress
    assert (progress.rounds, progress.control.drifts, progress.waiting) == (3, 1, "")


def test_twice_as_many_trajectories_end_the_pause(paused, records):
    paused.source.entries = entries(records[:79], first=200)
    paused.turns(3)
    assert paused.trainer.progress.rounds == 2
    paused.source.entries = entries(records[:1], first=300)
    paused.turns(3)
    assert paused.trainer.progress.rounds == 3
    assert "after 480 trajectories" in paused.trainer.progress.waiting
