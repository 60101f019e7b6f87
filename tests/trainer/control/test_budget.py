"""What share of the time work takes under a budget."""

from __future__ import annotations

import pytest

from aurora_trainer.control.budget import BURST_SECONDS, Budget


def worked(budget, *, start, seconds, step=0.5):
    """The seconds of work in so many seconds in which there is always something to do."""
    now, spent = start, 0.0
    while now < start + seconds:
        if budget.allows(now):
            now += step
            spent += step
            budget.spend(step, now)
        else:
            now += 0.1
    return spent


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_work_without_end_takes_its_share(percent):
    spent = worked(Budget(percent, began_at=7.0), start=7.0, seconds=1000)
    assert spent == pytest.approx(10 * percent, abs=1.0)


def test_without_a_limit_nothing_waits():
    assert worked(Budget(100, began_at=0.0), start=0.0, seconds=100) == 100


def test_idle_time_saves_up_a_burst_and_no_more():
    budget = Budget(10, began_at=0.0)
    assert worked(budget, start=1e6, seconds=300) == pytest.approx(BURST_SECONDS + 30, abs=1.0)


def test_it_says_when_work_may_go_on():
    budget = Budget(10, began_at=0.0)
    assert not budget.allows(0.0)
    budget.spend(2.0, 10.0)
    assert budget.waits_seconds(10.0) == pytest.approx(10.0)
    assert not budget.allows(19.9)
    assert budget.allows(20.1)
    assert budget.waits_seconds(20.1) == 0.0


def test_it_says_what_was_spent():
    budget = Budget(100, began_at=10.0)
    assert budget.share(10.0) == 0.0
    budget.spend(2.0, 20.0)
    assert budget.share(20.0) == pytest.approx(0.2)
