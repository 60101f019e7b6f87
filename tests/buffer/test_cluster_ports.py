"""The buffer as a pod has it: certificates for its peers, a Redis with a password behind TLS."""

import asyncio
import os
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificate import Authority

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_common.port import free_port

PASSWORD = "secret-of-redis"
PEERS = ("chat-inference.serving.svc", "chat-trainer.serving.svc")


@asynccontextmanager
async def tls_redis(redis_port, folder):
    """A port behind which a Redis that speaks no TLS is reached by it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    async def copy(reader, writer):
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def forward(reader, writer):
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", redis_port)
        await asyncio.gather(copy(reader, redis_writer), copy(redis_reader, writer))

    async with await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


class Pod:
    """`python -m aurora_buffer serve` with the flags of a pod."""

    def __init__(self, folder, *flags, redis_url):
        self.address, self.health_address = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._log = folder / "buffer.log"
        command = [sys.executable, "-m", "aurora_buffer", "serve", "--listen", self.address]
        command += ["--max-age-seconds", "3600", "--max-bytes", str(1 << 30)]
        command += ["--health-listen", self.health_address, *map(str, flags)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stderr=log, env=os.environ | {"AURORA_REDIS_URL": redis_url}
            )

    def health(self):
        request = health_pb2.HealthCheckRequest(service="aurora.buffer.v1.Buffer")
        with grpc.insecure_channel(self.health_address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
            except grpc.RpcError as error:
                return error.code().name
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    def stats(self, folder):
        """What it tells a client with the certificates of the folder, or without any."""
        with self._channel(folder) as channel:
            stub = buffer_pb2_grpc.BufferStub(channel)
            return stub.GetStats(buffer_pb2.GetStatsRequest(), timeout=5)

    def _channel(self, folder):
        if folder is None:
            return grpc.insecure_channel(self.address)
        credentials = grpc.ssl_channel_credentials(
            *((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        )
        options = [("grpc.ssl_target_name_override", "buffer")]
        return grpc.secure_channel(self.address, credentials, options=options)

    def command_line(self):
        return Path(f"/proc/{self.process.pid}/cmdline").read_text()

    def log(self):
        return self._log.read_text()

    def close(self):
        self.process.terminate()
        assert self.process.wait(10) == 0


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def start(tmp_path):
    pods = []

    def run(*flags, redis_url):
        pods.append(Pod(tmp_path, *flags, redis_url=redis_url))
        return pods[-1]

    yield run
    for pod in pods:
        pod.close()


@pytest.mark.redis
def test_peers_show_certificates_and_a_kubelet_none(
    start, redis_server, authority, tmp_path, until
):
    folder = authority.issue(tmp_path / "tls", "buffer")
    admit = [flag for peer in PEERS for flag in ("--admit", peer)]
    pod = start("--tls", folder, *admit, redis_url=redis_server.url)
    until(lambda: pod.health() == "SERVING", "the buffer serves")
    for peer in PEERS:
        assert pod.stats(authority.issue(tmp_path / peer, peer)).entries == 0
    for peer in ("chat-operator.serving.svc", "chat-trainer.other.svc", "chat-inference"):
        with pytest.raises(grpc.RpcError) as refused:
            pod.stats(authority.issue(tmp_path / peer, peer))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    for stranger in (None, Authority().issue(tmp_path / "stranger", PEERS[0])):
        with pytest.raises(grpc.RpcError) as refused:
            pod.stats(stranger)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    redis_server.kill()
    until(lambda: pod.health() == "NOT_SERVING", "it reports that Redis is unreachable")


@pytest.mark.redis
async def test_redis_by_tls_with_a_password_that_stays_hidden(
    start, redis_server, authority, tmp_path, until
):
    async def shows(health, what):
        await asyncio.to_thread(until, lambda: pod.health() == health, what)

    redis_server.client.config_set("requirepass", PASSWORD)
    folder = authority.issue(tmp_path / "redis-tls", "localhost")
    async with tls_redis(redis_server.port, folder) as port:
        ca = tmp_path / "ca.crt"
        ca.write_bytes(Authority().pem)
        url = f"rediss://:{PASSWORD}@localhost:{port}/0"
        pod = start("--redis-ca", ca, redis_url=url)
        await shows("NOT_SERVING", "it starts without trust in Redis")
        # The right authority is taken without a restart.
        (tmp_path / "new").write_bytes(authority.pem)
        (tmp_path / "new").rename(ca)
        await shows("SERVING", "the buffer serves")
        assert (await asyncio.to_thread(pod.stats, None)).entries == 0
        redis_server.kill()
        await shows("NOT_SERVING", "it reports that Redis is unreachable")
    assert PASSWORD not in pod.command_line()
    assert PASSWORD not in pod.log()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "no Redis given: pass --redis-url or set AURORA_REDIS_URL"),
        (["--tls", "/tls"], "--tls without --admit: no client could call; name those that may"),
        (
            ["--admit", PEERS[0]],
            "--admit without --tls: without certificates no client can be identified",
        ),
    ],
)
def test_a_missing_flag_is_reported_in_one_line(flags, problem):
    flags = ["--listen", "127.0.0.1:0", "--max-age-seconds", "1", "--max-bytes", "1", *flags]
    result = subprocess.run(
        [sys.executable, "-m", "aurora_buffer", "serve", *flags],
        capture_output=True,
        text=True,
        timeout=30,
        env={key: value for key, value in os.environ.items() if key != "AURORA_REDIS_URL"},
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == f"aurora_buffer: {problem}\n"
