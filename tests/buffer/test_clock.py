"""How long a reading of Redis' clock holds."""

import pytest

from aurora_buffer.clock import Reading


@pytest.mark.parametrize(
    ("now_seconds", "expected"),
    [
        (1000.0, 5_000_250),
        (1000.5, 5_000_750),
        # The machine slept, or the local clock was set.
        (1002.0, None),
        (999.0, None),
    ],
)
def test_reading_holds_for_a_second(now_seconds, expected):
    reading = Reading(redis_seconds=5000.25, local_seconds=1000.0)
    assert reading.redis_milliseconds(now_seconds=now_seconds) == expected
