from aurora_operator.local.log_tail import LogTail, last_error_line


def test_the_last_error_line(tmp_path):
    log = tmp_path / "component.log"
    assert last_error_line(log) == ""
    log.write_text("one\ncannot listen on 127.0.0.1:8000\n\n")
    assert last_error_line(log) == "cannot listen on 127.0.0.1:8000"
    log.write_text('{"level": "info", "message": "draining"}\n')
    assert last_error_line(log) == ""
    log.write_text(
        '{"level": "error", "message": "write failed", "reason": "disk full"}\n'
        '{"level": "info", "message": "draining"}\n'
    )
    assert last_error_line(log) == "write failed disk full"
    log.write_text("\x1b[31mred\x1b[0m\n")
    assert last_error_line(log) == "[31mred [0m"
    log.write_text("x" * 100_000)
    assert len(last_error_line(log)) == 300


def test_only_what_this_run_wrote_counts(tmp_path):
    log = tmp_path / "component.log"
    log.write_text('no space left\n{"progress": "loading weights: 9 of 9 GB"}\n')
    tail = LogTail(log)
    assert (tail.error(), tail.progress()) == ("", "")
    with log.open("a") as file:
        file.write('{"message": "loading", "progress": "loading weights: 1 of 9 GB"}\n')
        file.write('{"message": "listening"}\n')
    assert tail.progress() == "loading weights: 1 of 9 GB"
    assert tail.last() == "listening"
    with log.open("a") as file:
        file.write('{"message": "not serving", "reason": "MISCONF No space left on device"}\n')
    assert tail.last() == "not serving: MISCONF No space left on device"
    with log.open("a") as file:
        file.write("Killed\n")
    assert tail.last() == "Killed"
    assert (tail.error(), tail.progress()) == ("Killed", "loading weights: 1 of 9 GB")


def test_a_rotated_log_is_read_from_its_beginning(tmp_path):
    log = tmp_path / "component.log"
    log.write_text("x" * 100)
    tail = LogTail(log)
    log.write_text("cannot start\n")
    assert tail.error() == "cannot start"
