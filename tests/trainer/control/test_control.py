"""When the trainer trains, over a run."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from aurora_trainer.control.control import (
    Control,
    with_request,
    with_round_begun,
    with_round_ended,
)
from aurora_trainer.control.gain import Gain, Probe

USELESS = Gain(0.0, 0.01, 0.6)


def requests(control, domain, count):
    for _ in range(count):
        control = with_request(control, domain, 0.5)
    return control


@pytest.fixture
def paused():
    control = requests(Control(), "a", 100)
    for total in (5.0, 10.0):
        begun = with_round_begun(control, Probe(), training_seconds=total - 5.0)
        control = with_round_ended(begun, USELESS, training_seconds=total, trajectories=100)
    return control


def test_a_pause_lasts_while_traffic_is_the_same(paused):
    assert paused.plateau.seconds == 5.0
    assert requests(paused, "a", 90).plateau.waits(190)


def test_a_change_of_traffic_ends_a_pause(paused):
    changed = requests(paused, "b", 16)
    assert not changed.plateau.waits(116)
    assert changed.drifts == 1
    assert changed.drift == "51% of the requests are in other domains"
    # It is one change, not one a request.
    assert requests(changed, "b", 500).drifts == 1


def test_it_is_saved_whole(paused):
    control = with_round_begun(paused, Probe((("1-0", "2-0"),), (0.5,)), training_seconds=3.0)
    assert Control.from_content(asdict(control)) == control
