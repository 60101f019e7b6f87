"""Whatever happens to the program, its own children or its supervisor, nothing runs on."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

# A program with a child, both of which say their ids.
FAMILY = """\
import os, signal, subprocess, sys, time
{first}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
{then}
"""
SUPERVISED = "import sys; from aurora_inference.vllm.supervised import supervised as run\n"


@pytest.fixture
def begun():
    running = []

    def begun(then, first=""):
        command = [sys.executable, "-c", FAMILY.format(first=first, then=then)]
        process = subprocess.Popen(
            [sys.executable, "-c", f"{SUPERVISED}sys.exit(run({command!r}))"],
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield begun
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def await_end(pids):
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} run on"
        time.sleep(0.02)


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_its_exit_code_is_passed_on_and_its_children_end(begun):
    process, pids = begun("sys.exit(5)")

    assert process.wait(20) == 5
    await_end(pids)


def test_a_stop_is_passed_on(begun):
    handled = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
    process, pids = begun("time.sleep(600)", first=handled)
    process.send_signal(signal.SIGTERM)

    assert process.wait(20) == 7
    await_end(pids)


def test_a_program_that_is_killed_leaves_nothing(begun):
    process, pids = begun("time.sleep(600)")
    os.kill(pids[0], signal.SIGKILL)

    assert process.wait(20) == 128 + signal.SIGKILL
    await_end(pids)


def test_a_supervisor_that_is_killed_takes_the_whole_program_along(begun):
    """Also one that does not end when it is asked to, and its children."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    process, pids = begun("time.sleep(600)", first=deaf)
    process.kill()

    await_end(pids)
