"""A gateway in front of a stock vLLM."""

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
from stock.server import KEY, Server
from support.collecting_buffer import CollectingBuffer

from aurora.buffer.v1 import buffer_pb2_grpc
from aurora.inference.v1 import inference_pb2_grpc

START_SECONDS = 60


@dataclass
class Gateway:
    popen: subprocess.Popen
    buffer: CollectingBuffer
    lines: list[dict] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        for line in self.popen.stderr:
            with self.changed:
                self.lines.append(json.loads(line))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def logged(self, message: str, with_field: str = "message") -> dict:
        def found() -> dict | None:
            return next(
                (one for one in self.lines if one["message"] == message and with_field in one), None
            )

        with self.changed:
            assert self.changed.wait_for(
                lambda: found() or self.popen.poll() is not None, START_SECONDS
            ), self.lines
            entry = found()
        assert entry is not None, self.lines
        return entry

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.logged('listening', 'http_port')['http_port']}"

    @contextmanager
    def operator(self) -> Iterator[inference_pb2_grpc.InferenceStub]:
        port = self.logged("listening", "control_port")["control_port"]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield inference_pb2_grpc.InferenceStub(channel)


@contextmanager
def fronted(vllm: Server, target: Path, folder: Path, *flags: str) -> Iterator[Gateway]:
    """A serving gateway; killed at the end if it is still running."""
    buffer, server = CollectingBuffer(seconds=60), grpc.server(futures.ThreadPoolExecutor(4))
    buffer_pb2_grpc.add_BufferServicer_to_server(buffer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    (folder / "key").write_text(KEY)
    popen = subprocess.Popen(
        [
            *(sys.executable, "-m", "aurora_inference.gateway"),
            *("--engine", f"http://127.0.0.1:{vllm.port}", "--engine-key", str(folder / "key")),
            *("--http-listen", "127.0.0.1:0", "--control-listen", "127.0.0.1:0"),
            *("--target", str(target), "--buffer", f"127.0.0.1:{port}", *flags),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    gateway = Gateway(popen, buffer)
    reader = threading.Thread(target=gateway.read)
    reader.start()
    try:
        gateway.logged("serving")
        yield gateway
    finally:
        popen.send_signal(signal.SIGKILL)
        popen.wait()
        reader.join()
        popen.stderr.close()
        server.stop(0).wait()


@pytest.fixture(scope="module")
def gateway(vllm, models, tmp_path_factory) -> Iterator[Gateway]:
    """Captures everything."""
    folder = tmp_path_factory.mktemp("gateway")
    with fronted(vllm, models.target, folder, "--capture-percent", "100") as running:
        yield running
