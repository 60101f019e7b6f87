from __future__ import annotations

import pytest

from aurora_client import OverloadedError, Retry, ServerError, Timeout, UnavailableError
from aurora_client._policy import Attempts


@pytest.mark.parametrize(
    ("failures", "uniform", "pause"),
    [(1, 0.0, 0.05), (1, 1.0, 0.1), (2, 0.5, 0.15), (3, 1.0, 0.4), (9, 0.0, 1.0), (9, 1.0, 2.0)],
)
def test_the_pause_doubles_up_to_its_limit_and_its_upper_half_is_random(failures, uniform, pause):
    assert Retry().pause_seconds(failures, uniform) == pytest.approx(pause)


def test_only_unavailability_is_retried_unless_overload_is_covered():
    assert Retry().covers(UnavailableError("down"))
    assert not Retry().covers(OverloadedError("full"))
    assert Retry(overloaded=True).covers(OverloadedError("full"))
    assert not Retry(overloaded=True).covers(ServerError("bug"))


def test_attempts_end_with_the_retries():
    attempts = Attempts(Retry(retries=2), started_at=0.0, seconds=10.0)
    down = UnavailableError("down")
    assert attempts.pause_seconds(down, 0.0, 0.0) == pytest.approx(0.05)
    assert attempts.pause_seconds(down, 0.1, 0.0) == pytest.approx(0.1)
    assert attempts.pause_seconds(down, 0.2, 0.0) is None


def test_no_attempt_follows_a_pause_beyond_the_deadline():
    attempts = Attempts(Retry(initial_seconds=1.0), started_at=0.0, seconds=1.0)
    assert attempts.pause_seconds(UnavailableError("down"), 0.6, 0.0) is None


def test_what_remains_is_never_negative():
    attempts = Attempts(Retry(), started_at=5.0, seconds=1.0)
    assert attempts.remaining_seconds(5.25) == 0.75
    assert attempts.remaining_seconds(7.0) == 0.0


@pytest.mark.parametrize("wrong", [{"call_seconds": 0.0}, {"generate_seconds": float("nan")}])
def test_a_timeout_must_be_positive(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        Timeout(**wrong)


@pytest.mark.parametrize("wrong", [{"retries": -1}, {"initial_seconds": 3.0}])
def test_invalid_retry_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        Retry(**wrong)
