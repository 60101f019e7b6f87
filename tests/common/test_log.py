"""Repeated warnings are written ever more rarely."""

import logging
import time
from itertools import pairwise

import pytest

from aurora_common.log import Backoff


@pytest.fixture
def clock(monkeypatch):
    """Sets the clock's seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 1000.0 + seconds)


@pytest.fixture
def written(clock):
    """Whether a warning is written at that second, and how often it was dropped before."""
    backoff = Backoff()

    def written(second, reason="gone", level=logging.WARNING):
        clock(second)
        record = logging.LogRecord("a", level, "", 0, "stage failed", None, None)
        record.fields = {"reason": reason}
        return backoff.filter(record), record.fields.get("repeated", 0)

    return written


def test_what_repeats_every_second_is_written_at_doubling_intervals(written):
    found = {second: written(second) for second in range(3600)}

    times = [second for second, (passed, _) in found.items() if passed]
    assert times[:6] == [0, 1, 3, 7, 15, 31]
    assert [found[second][1] for second in times[:5]] == [0, 0, 1, 3, 7]
    gaps = [after - before for before, after in pairwise(times[10:])]
    assert set(gaps) == {600}


def test_another_reason_is_news_and_so_is_one_after_a_silence(written):
    for second in range(5):
        written(second)

    assert written(5, reason="denied") == (True, 0)
    assert written(100) == (True, 1)
    assert written(101) == (True, 0)


def test_progress_is_always_written(written):
    assert all(written(0, level=logging.INFO)[0] for _ in range(3))


def test_only_so_many_are_remembered(written):
    assert all(written(0, reason=str(number))[0] for number in range(2000))
    assert written(0, reason="0")[0]
    assert not written(0, reason="1999")[0]
