from aurora_operator.local.backoff import Backoff


def test_doubles_up_to_a_bound_and_resets_after_a_minute_up():
    backoff, delays = Backoff(), []
    for _ in range(10):
        backoff = backoff.after_exit(up_seconds=1)
        delays.append(backoff.delay_seconds)
    assert delays == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.after_exit(up_seconds=60).delay_seconds == 0.25
    assert Backoff(100_000).delay_seconds == 30
