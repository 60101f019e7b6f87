"""The command as a process, mostly without a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aurora_client.testing import Answer, FakeServer

AURORA = [sys.executable, "-m", "aurora_client"]
# A busy machine takes seconds to start Python; only a hang takes this long.
PATIENCE_SECONDS = 60


def finished(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AURORA, *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS, **settings
    )


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Restores SIGINT, which shells ignore for background processes and their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def hanging() -> Iterator[FakeServer]:
    with FakeServer(Answer("Hello", end="hang")) as server:
        yield server


def test_an_unreachable_server_ends_with_one_line():
    with FakeServer() as server:
        address = server.address
    done = finished("generate", "Hi", "--address", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"aurora: {address}: cannot connect (Connection refused)\n"


def test_an_interrupted_generate_cancels_the_call_and_exits_quietly(hanging):
    process = subprocess.Popen(
        [*AURORA, "generate", "Hi", "--address", hanging.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(5) == b"Hello"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, output, errors) == (130, b"\n", b"")
    assert hanging.wait_for(lambda: hanging.cancelled == 1, seconds=PATIENCE_SECONDS)


def test_an_interrupted_bench_exits_quietly(hanging):
    process = subprocess.Popen(
        [*AURORA, "bench", "--api", "grpc", "--address", hanging.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert hanging.wait_for(lambda: len(hanging.requests) == 1, seconds=PATIENCE_SECONDS)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, output, errors) == (130, b"", b"")


def test_a_closed_pipe_causes_no_traceback(hanging):
    process = subprocess.Popen(
        [*AURORA, "status", "--json", "--watch", "--operator", hanging.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"{")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=PATIENCE_SECONDS) == 1
    process.stderr.close()


def test_the_live_view_outlives_the_operator(tmp_path):
    main, child = pty.openpty()
    try:
        with FakeServer() as server:
            process = subprocess.Popen(
                [*AURORA, "status", "--operator", server.address],
                stdin=child,
                stdout=child,
                stderr=child,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
            )
            os.close(child)
            assert b"\x1b[" in _read_until(main, b"default/fake")
        _read_until(main, b"the operator does not answer")
        process.send_signal(signal.SIGINT)
        # Read to the end: a terminal that nobody reads blocks the process in its last write.
        _read_all(main)
        assert process.wait(timeout=PATIENCE_SECONDS) == 130
    finally:
        os.close(main)


def _read_all(descriptor: int) -> None:
    # Linux reports the end of a pseudo-terminal as an error.
    with suppress(OSError):
        while os.read(descriptor, 1 << 16):
            pass


def _read_until(descriptor: int, text: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while text not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, seen
        seen += os.read(descriptor, 1 << 16)
    return seen


@pytest.mark.parametrize(
    ("module", "arguments", "passed"),
    [
        (
            "aurora_operator",
            ["up", "-f", "chat.yaml", "--data-dir", "d", "--grpc-port", "7"],
            "up -f chat.yaml --data-dir d --http-port 8000 --grpc-port 7",
        ),
        ("aurora_demo", ["demo", "--quick", "x", "--help"], "--quick x --help"),
    ],
)
def test_another_part_replaces_the_process_and_sets_the_exit_code(
    tmp_path, module, arguments, passed
):
    _fake_part(tmp_path, module)
    done = finished(*arguments, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (7, passed + "\n"), done.stderr


def _fake_part(folder: Path, module: str) -> None:
    package = folder / module
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys\nprint(' '.join(sys.argv[1:]))\nsys.exit(7)\n")


def test_the_command_never_loads_torch():
    code = "import sys, aurora_client._cli.app; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], timeout=PATIENCE_SECONDS, check=False
        ).returncode
        == 0
    )
