"""Real inference processes over a tiny random model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from support.collecting_buffer import CollectingBuffer

from aurora.buffer.v1 import buffer_pb2_grpc
from aurora.inference.v1 import inference_pb2_grpc

MODEL = "tiny"
CONTEXT_TOKENS = 512
START_SECONDS = 120


@dataclass
class Process:
    """A running `python -m aurora_inference` and its log."""

    popen: subprocess.Popen
    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        for line in self.popen.stderr:
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def logged(self, message: str, *, with_field: str = "message") -> dict:
        """Waits for the first log entry with this message and field."""

        def found() -> dict | None:
            for line in self.lines:
                if line.startswith("{"):
                    entry = json.loads(line)
                    if entry["message"] == message and with_field in entry:
                        return entry
            return None

        with self.changed:
            assert self.changed.wait_for(
                lambda: found() or self.popen.poll() is not None, START_SECONDS
            )
            entry = found()
        assert entry is not None, "".join(self.lines)
        return entry

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.logged('listening', with_field='http_port')['http_port']}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.logged('listening', with_field='address')['port']}"

    @property
    def control(self) -> str:
        port = self.logged("listening", with_field="control_port")["control_port"]
        return f"127.0.0.1:{port}"

    def terminate(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(10)


@contextmanager
def running(target_folder: Path, *flags: str) -> Iterator[Process]:
    """A process on free ports; killed at the end if still running."""
    command = [sys.executable, "-m", "aurora_inference", "--target", str(target_folder)]
    command += ["--model-name", MODEL, "--http-listen", "127.0.0.1:0"]
    command += ["--grpc-listen", "127.0.0.1:0"]
    if "--control-listen" not in flags:
        command += ["--control-listen", "127.0.0.1:0"]
    command += flags
    popen = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    process = Process(popen)
    reader = threading.Thread(target=process.read)
    reader.start()
    try:
        yield process
    finally:
        popen.kill()
        popen.wait()
        reader.join()
        popen.stderr.close()


@dataclass
class BufferServer:
    """The collecting buffer on a port that it keeps across restarts."""

    buffer: CollectingBuffer
    port: int = 0
    server: grpc.Server | None = None

    def start(self) -> None:
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        buffer_pb2_grpc.add_BufferServicer_to_server(self.buffer, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def stop(self) -> None:
        self.server.stop(0).wait()


@pytest.fixture(scope="session")
def buffer_server() -> Iterator[BufferServer]:
    server = BufferServer(CollectingBuffer(seconds=30))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def stable(publish):
    return publish("stable", seed=1)


@pytest.fixture(scope="session")
def process(target_folder, stable, buffer_server) -> Iterator[Process]:
    """One process shared by all tests that leave it serving."""
    folder, manifest = stable
    with running(
        target_folder,
        *("--draft", str(folder), "--draft-digest", manifest.digest),
        *("--buffer", f"127.0.0.1:{buffer_server.port}"),
        *("--max-batch", "4", "--max-waiting", "8"),
    ) as started:
        started.logged("serving")
        yield started


@pytest.fixture
def stub(process) -> Iterator[inference_pb2_grpc.InferenceStub]:
    with grpc.insecure_channel(process.grpc) as channel:
        yield inference_pb2_grpc.InferenceStub(channel)


@pytest.fixture
def control(process) -> Iterator[inference_pb2_grpc.InferenceStub]:
    """The operator's port."""
    with grpc.insecure_channel(process.control) as channel:
        yield inference_pb2_grpc.InferenceStub(channel)
