"""Starts the services that a benchmark measures, for the length of a block."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

READY_SECONDS = 120.0
_POLL_SECONDS = 0.1


@contextmanager
def component(module: str, *arguments: str) -> Iterator[int]:
    """Runs `python -m <module> …` for the block; its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stderr=None if "AURORA_BENCH_LOGS" in os.environ else subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def wait_until_serving(address: str) -> None:
    """Returns once the server's health is SERVING; raises TimeoutError otherwise."""
    deadline = time.monotonic() + READY_SECONDS
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
            time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"{address} did not serve within {READY_SECONDS:.0f} s")
