"""When training pauses, and when it resumes."""

from __future__ import annotations

import pytest

from aurora_trainer.control.gain import Gain
from aurora_trainer.control.plateau import Plateau, after_round

USEFUL, USELESS = Gain(0.05, 0.0, 0.6), Gain(0.0001, 0.0, 0.6)


def after(*rounds, trajectories=100):
    state = Plateau()
    for found in rounds:
        state = after_round(state, found, seconds=3.0, trajectories=trajectories)
    return state


@pytest.mark.parametrize(
    ("rounds", "trajectories", "waits"),
    [
        ((), 0, False),
        ((USELESS,), 101, False),
        ((USELESS, USELESS), 101, True),
        ((USELESS, USELESS), 199, True),
        ((USELESS, USELESS), 200, False),
        ((USELESS, USEFUL, USELESS), 101, False),
        ((USELESS, USELESS, USEFUL), 101, False),
        # Nothing says that it does not pay.
        ((None, None, None), 101, False),
        ((USELESS, None, USELESS), 101, False),
    ],
)
def test_training_pauses_after_two_rounds_that_do_not_pay(rounds, trajectories, waits):
    state = after(*rounds)
    assert state.waits(trajectories) is waits
    assert bool(state.described(trajectories)) is waits


def test_one_try_that_fails_after_the_pause_is_enough():
    state = after_round(after(USELESS, USELESS), USELESS, seconds=3.0, trajectories=200)
    assert state.waits(399)
    assert not state.waits(400)


def test_it_says_what_it_waits_for():
    assert after(USELESS, USELESS, trajectories=600).described(700) == (
        "the last 2 rounds cost more than they gained: the last one took 3.0 s and saves 0.1 s of "
        "600 s; training resumes when traffic changes or after 1,200 trajectories"
    )
