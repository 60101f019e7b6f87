import asyncio
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from aurora_operator.local.layout import prepared_layout
from aurora_operator.local.port import free_ports
from aurora_operator.local.process import ProcessRuntime, stop_recorded
from aurora_operator.local.process_spec import ProcessSpec
from aurora_operator.local.record import RecordBook

COMPONENT = str(Path(__file__).with_name("component.py"))


async def _until(condition, *, seconds=20.0):
    """Polls a condition until it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "does not become true"
        await asyncio.sleep(0.01)


def _runs(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _component(name, *flags, requires=(), port=None):
    address = f"127.0.0.1:{port or free_ports(1)[0]}"
    return ProcessSpec(
        name, (sys.executable, COMPONENT, address, *flags), address, "grpc", requires
    )


async def _abandon(runtime):
    """Leaves the components running, as a killed operator does."""
    for task in runtime._tasks.values():
        task.cancel()
    await asyncio.gather(*runtime._tasks.values(), return_exceptions=True)


@pytest.fixture
def layout(tmp_path):
    return prepared_layout(tmp_path / "data")


@pytest.fixture
async def start(layout):
    """Starts runtimes on one data directory; every process is stopped after the test."""
    reading, writing = os.pipe()
    runtimes = []

    async def start(*commands):
        book = RecordBook(layout.processes)
        runtime = ProcessRuntime(layout, book, leash=reading, on_change=lambda: None)
        runtimes.append(runtime)
        await runtime.apply(commands)
        return runtime

    yield start
    for runtime in runtimes:
        await _abandon(runtime)
    os.close(writing)
    os.close(reading)
    await stop_recorded(RecordBook(layout.processes))
    # Init would reap the abandoned ones; here their parent still lives.
    for runtime in runtimes:
        for supervisor in runtime._supervisors.values():
            if supervisor._child is not None and supervisor._child._popen is not None:
                supervisor._child._popen.wait()


@pytest.fixture
def until():
    return _until


@pytest.fixture
def runs():
    return _runs


@pytest.fixture
def component():
    return _component


@pytest.fixture
def abandon():
    return _abandon
