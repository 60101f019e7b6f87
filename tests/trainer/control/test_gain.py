"""What a round gained, and whether it pays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aurora_trainer.control.gain import Gain, Probe, gain, pays, probe


def held_out(count):
    return [SimpleNamespace(stream_id=f"{number}-0") for number in range(count)]


def by_id(samples):
    return {sample.stream_id: sample for sample in samples}


@pytest.mark.parametrize(
    ("mean", "error", "acceptance", "seconds", "worth"),
    [
        # One hundredth of the steps is six seconds of ten minutes.
        (0.005, 0.0, 0.505, 6.0, True),
        (0.005, 0.0, 0.505, 6.1, False),
        # The lower bound decides.
        (0.005, 0.001, 0.505, 6.0, False),
        # What is gained near the top saves more steps.
        (0.005, 0.0, 0.905, 30.0, True),
        (0.005, 0.0, 0.905, 32.0, False),
        (0.0, 0.0, 0.5, 0.001, False),
        (-0.1, 0.01, 0.5, 0.001, False),
        (0.001, 0.0, 1.0, 30.0, True),
        (0.001, 0.0, 1.0, 30.1, False),
    ],
)
def test_a_round_pays_if_its_lower_bound_saves_its_time(mean, error, acceptance, seconds, worth):
    assert pays(Gain(mean, error, acceptance), seconds=seconds) is worth


def test_the_gain_is_paired_by_group():
    samples = held_out(32)
    before = probe(samples, lambda group: int(group[0].stream_id[:-2]) / 100)
    assert [len(each) for each in before.groups] == [2] * 16
    found = gain(before, by_id(samples), lambda group: int(group[0].stream_id[:-2]) / 100 + 0.1)
    # Groups differ much, but each gains as much.
    assert found.mean == pytest.approx(0.1)
    assert found.error == pytest.approx(0)
    assert found.acceptance == pytest.approx(0.25)


def test_what_groups_disagree_about_is_uncertain():
    samples = held_out(16)
    found = gain(
        probe(samples, lambda group: 0.5),
        by_id(samples),
        lambda group: 0.5 + 0.2 * (int(group[0].stream_id[:-2]) % 2),
    )
    assert found.mean == pytest.approx(0.1)
    assert found.error == pytest.approx(0.1 * (16 / 15) ** 0.5 / 4)


@pytest.mark.parametrize(("kept", "measured"), [(16, True), (8, True), (7, False), (0, False)])
def test_groups_that_lost_a_member_are_left_out(kept, measured):
    samples = held_out(16)
    before = probe(samples, lambda group: 0.5)
    found = gain(before, by_id(samples[16 - kept :]), lambda group: 0.6)
    assert (found is not None) is measured
    if measured:
        assert found.groups == kept


@pytest.mark.parametrize("count", [0, 15])
def test_few_trajectories_are_not_measured(count):
    before = probe(held_out(count), lambda group: 0.5)
    assert before == Probe()
    assert gain(before, by_id(held_out(count)), lambda group: 0.6) is None
