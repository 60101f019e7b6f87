"""A test run that is killed leaves no server behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from support import tethered
from support.deployments import wait_until

FOLDER = Path(tethered.__file__).parents[1]
# Starts a tethered process, prints its pid, and waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.tethered import tethered
command = [sys.executable, "-c", "import time; time.sleep(600)"]
print(tethered(command, log=Path(sys.argv[2])).pid, flush=True)
time.sleep(600)
"""


def test_a_tethered_process_dies_with_its_killed_parent(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, FOLDER, tmp_path / "log"], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()

        os.kill(parent.pid, signal.SIGKILL)

        wait_until(lambda: is_gone(child))


def is_gone(process):
    """A zombie counts as gone: the process that inherited it may never reap it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
