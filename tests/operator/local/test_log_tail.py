from aurora_operator.local.child import last_log_line


def test_last_log_line(tmp_path):
    log = tmp_path / "component.log"
    assert last_log_line(log) == ""
    log.write_text("one\ncannot listen on 127.0.0.1:8000\n\n")
    assert last_log_line(log) == "cannot listen on 127.0.0.1:8000"
    log.write_text('{"level": "info", "message": "draining"}\n')
    assert last_log_line(log) == "draining"
    log.write_text('{"message": "not serving", "reason": "MISCONF No space left on device"}\n')
    assert last_log_line(log) == "not serving: MISCONF No space left on device"
    log.write_text("x" * 100_000)
    assert len(last_log_line(log)) == 300
