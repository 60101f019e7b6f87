from aurora_operator.local.backoff import Backoff
from aurora_operator.local.child import last_log_line


def test_doubles_up_to_a_bound_and_resets_after_a_minute_up():
    backoff, delays = Backoff(), []
    for _ in range(10):
        backoff = backoff.after_exit(up_seconds=1)
        delays.append(backoff.delay_seconds)
    assert delays == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.after_exit(up_seconds=60).delay_seconds == 0.25
    assert Backoff(100_000).delay_seconds == 30


def test_last_log_line(tmp_path):
    log = tmp_path / "component.log"
    assert last_log_line(log) == ""
    log.write_text("one\ncannot listen on 127.0.0.1:8000\n\n")
    assert last_log_line(log) == "cannot listen on 127.0.0.1:8000"
    log.write_text('{"level": "info", "message": "draining"}\n')
    assert last_log_line(log) == "draining"
    log.write_text("x" * 100_000)
    assert len(last_log_line(log)) == 300
