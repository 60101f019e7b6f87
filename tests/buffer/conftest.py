"""A real redis-server and a real buffer in front of it, on free ports, for each test."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_buffer.redis_server import RedisOptions, redis_arguments, redis_binary
from aurora_common.port import free_port

SECONDS = 30.0
STREAM = "aurora:trajectories"


def until(condition: Callable[[], bool], what: str) -> None:
    """Returns once `condition` holds; fails the test after SECONDS."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


class RedisServer:
    """A redis-server as `aurora_buffer redis` starts it, in one folder for its life."""

    def __init__(self, folder: Path, *more: str, appendfsync: str = "always") -> None:
        folder.mkdir()
        socket = folder / "redis.sock"
        self.url = f"unix://{socket}"
        # For the tests alone: a port, and a user who may do everything.
        self.port = free_port()
        self.client = redis.Redis(port=self.port, protocol=2, username="test", password="test")
        self._arguments = [
            *redis_arguments(redis_binary(), RedisOptions(folder, socket, appendfsync)),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--user", "test", "on", ">test", "~*", "&*", "+@all"),
            *more,
        ]
        self._log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._arguments, stdout=log)
        until(self._answers, "Redis answers")

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError):
            return self.client.ping()
        return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        self.kill()
        self.client.close()


class BufferServer:
    """`python -m aurora_buffer serve` on one port for its life, and a client of it."""

    def __init__(
        self,
        redis_url: str,
        folder: Path,
        *,
        serving: bool,
        program: tuple[str, ...] = ("-m", "aurora_buffer"),
        **flags: int,
    ) -> None:
        self.may_crash = False
        self.port = free_port()
        self.metrics_port = free_port()
        self._serving = serving
        self._log = folder / "buffer.log"
        limits = {"max_bytes": 1 << 30, "max_age_seconds": 3600, "dead_after_seconds": 60} | flags
        self._arguments = [sys.executable, *program, "serve"]
        self._arguments += ["--listen", f"127.0.0.1:{self.port}", "--redis-url", redis_url]
        self._arguments += ["--metrics-listen", f"127.0.0.1:{self.metrics_port}"]
        for name, value in limits.items():
            self._arguments += [f"--{name.replace('_', '-')}", str(value)]
        self._stack = ExitStack()
        # Tries again soon after the server was killed.
        options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.max_receive_message_length", -1)]
        self.channel = self._stack.enter_context(
            grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options)
        )
        self.stub = buffer_pb2_grpc.BufferStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._arguments, stderr=log)
        expected = "SERVING" if self._serving else "NOT_SERVING"
        until(lambda: self.health() == expected, f"the buffer is {expected}")

    def health(self) -> str:
        request = health_pb2.HealthCheckRequest(service="aurora.buffer.v1.Buffer")
        try:
            response = self._health.Check(request, timeout=SECONDS)
        except grpc.RpcError as error:
            return error.code().name
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self._stack.close()
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(SECONDS) == 0
        assert self.may_crash or "Traceback" not in self.log()

    def log(self) -> str:
        return self._log.read_text()

    def append(self, *trajectories: buffer_pb2.Trajectory) -> buffer_pb2.AppendResponse:
        request = buffer_pb2.AppendRequest(trajectories=trajectories)
        return self.stub.Append(iter([request]), timeout=SECONDS, wait_for_ready=True)

    def subscribe(self, consumer: str = "one", *, group: str = "trainer", batch: int = 4):
        request = buffer_pb2.SubscribeRequest(group=group, consumer=consumer, batch=batch)
        return self.stub.Subscribe(request, timeout=SECONDS, wait_for_ready=True)

    def ack(self, *ids: str, group: str = "trainer") -> int:
        request = buffer_pb2.AckRequest(group=group, ids=ids)
        return self.stub.Ack(request, timeout=SECONDS, wait_for_ready=True).acked

    def stats(self) -> buffer_pb2.GetStatsResponse:
        return self.stub.GetStats(
            buffer_pb2.GetStatsRequest(), timeout=SECONDS, wait_for_ready=True
        )

    def delete(self, tenant: str) -> int:
        request = buffer_pb2.DeleteTenantRequest(tenant=tenant)
        return self.stub.DeleteTenant(request, timeout=SECONDS).deleted


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts a redis-server with more flags, in a folder of its own by default."""
    servers: list[RedisServer] = []

    def start(*more: str, folder: Path | None = None, appendfsync: str = "always") -> RedisServer:
        folder = folder or tmp_path / f"redis-{len(servers)}"
        servers.append(RedisServer(folder, *more, appendfsync=appendfsync))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def redis_server(start_redis: Callable[..., RedisServer], tmp_path: Path) -> RedisServer:
    return start_redis(folder=tmp_path / "redis")


@pytest.fixture
def serve(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., BufferServer]]:
    """Starts buffers in front of a Redis, the test's by default; flags by their names."""
    servers: list[BufferServer] = []

    def start(*, url: str | None = None, serving: bool = True, **more: Any) -> BufferServer:
        url = url or request.getfixturevalue("redis_server").url
        server = BufferServer(url, tmp_path, serving=serving, **more)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def buffer(serve: Callable[..., BufferServer]) -> BufferServer:
    return serve()


@pytest.fixture
def trajectory() -> Callable[..., buffer_pb2.Trajectory]:
    def build(request_id: str, *, tenant: str = "acme", tokens: int = 3) -> buffer_pb2.Trajectory:
        k = 4
        return buffer_pb2.Trajectory(
            request_id=request_id,
            tenant=tenant,
            output_tokens=range(tokens),
            target=buffer_pb2.TargetDistributions(
                k=k,
                token_ids=bytes(4 * k * tokens),
                log_probs=bytes(2 * k * tokens),
                tail_mass=bytes(2 * tokens),
            ),
        )

    return build


def take(stream, count: int) -> dict[str, str]:
    """The next `count` entries of a subscription at least: request ids by entry id, in order."""
    entries: dict[str, str] = {}
    while len(entries) < count:
        for entry in next(stream).entries:
            entries[entry.id] = entry.trajectory.request_id
    return entries


@pytest.fixture(name="take")
def take_fixture() -> Callable[..., dict[str, str]]:
    return take


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], bool], str], None]:
    return until
