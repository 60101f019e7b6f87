"""How a process starts, fails to start, and stops."""

from __future__ import annotations

import shutil
import socket
import time

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurora_common.errors import REFUSED

from .conftest import MODEL, START_SECONDS, running


def _ended(process) -> tuple[int, str]:
    """The exit code of a process that ends by itself, and its output besides log entries."""
    code = process.popen.wait(START_SECONDS)
    with process.changed:
        process.changed.wait_for(lambda: process.popen.stderr.closed, 0.5)
    return code, "".join(line for line in process.lines if not line.startswith("{"))


def test_sigterm_lets_a_stream_finish_and_stops_in_time(target_folder):
    with running(target_folder) as process:
        process.logged("serving")
        ask = {"model": MODEL, "prompt": "a", "max_tokens": 60, "ignore_eos": True, "stream": True}
        with (
            httpx2.Client(base_url=process.http, timeout=30) as http,
            http.stream("POST", "/v1/completions", json=ask) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            process.popen.terminate()
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason":"length"' in rest[-2]
        assert process.popen.wait(10) == 0


def test_sigterm_while_loading_stops_at_once(target_folder):
    with running(target_folder) as process:
        process.logged("listening", with_field="http_port")
        assert process.terminate() == 0


def test_health_is_not_serving_until_the_model_is_loaded(target_folder):
    with running(target_folder) as process:
        assert httpx2.get(f"{process.http}/health", timeout=60).status_code == 503
        with grpc.insecure_channel(process.grpc) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
            process.logged("serving")
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert httpx2.get(f"{process.http}/health").status_code == 200
        assert process.terminate() == 0


@pytest.mark.parametrize("flag", ["--http-listen", "--grpc-listen"])
def test_a_port_in_use_is_reported_quickly_and_clearly(target_folder, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with running(target_folder, flag, address) as process:
            code, said = _ended(process)
    assert code == 1
    assert f"cannot listen on {address}" in said
    assert "Traceback" not in said
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--max-context-tokens", "100000"), "--max-context-tokens is 100000"),
        (("--draft", "/nonexistent"), "nonexistent"),
    ],
)
def test_a_failed_start_prints_one_line(target_folder, flags, says):
    with running(target_folder, *flags) as process:
        code, said = _ended(process)
    assert code == REFUSED
    assert says in said
    assert "Traceback" not in "".join(process.lines)
    assert len(said.strip().splitlines()) == 1


def test_a_folder_without_a_model_is_refused(tmp_path):
    with running(tmp_path) as process:
        code, said = _ended(process)
    assert code == REFUSED
    assert str(tmp_path) in said
    assert "Traceback" not in "".join(process.lines)


def test_a_damaged_model_is_refused(target_folder, tmp_path):
    folder = shutil.copytree(target_folder, tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with running(folder) as process:
        code, said = _ended(process)
    assert code == REFUSED
    assert f"cannot read the weights in {folder}" in said
