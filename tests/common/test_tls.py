"""Real connections between servers and clients with changing certificates."""

import asyncio
import logging
import shutil
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificate import Authority

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_common import tls
from aurora_common.admission import only_peers
from aurora_common.errors import InvalidInputError, NotFoundError
from aurora_common.grpc_server import GrpcServer
from aurora_common.port import free_port
from aurora_common.tls import CertificateFolder, Connection

# Only a hang takes this long, on a busy machine too.
PATIENCE_SECONDS = 60
ANY_NAME = (("grpc.ssl_target_name_override", "server"),)


class Buffer(buffer_pb2_grpc.BufferServicer):
    async def GetStats(self, request, context):  # noqa: N802
        return buffer_pb2.GetStatsResponse(entries=7)


@asynccontextmanager
async def serving(folder, **options):
    server = GrpcServer(
        "127.0.0.1:0", drain_seconds=0.1, certificates=CertificateFolder(folder), **options
    )
    server.add(buffer_pb2_grpc.add_BufferServicer_to_server, Buffer())
    port = await server.start(["aurora.buffer.v1.Buffer"])
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop()


@asynccontextmanager
async def connected(address, folder):
    certificates = None if folder is None else CertificateFolder(folder)
    connection = Connection(address, certificates=certificates, options=ANY_NAME)
    try:
        yield connection
    finally:
        await connection.close()


async def call(connection):
    stub = buffer_pb2_grpc.BufferStub(connection.channel())
    return (await stub.GetStats(buffer_pb2.GetStatsRequest(), timeout=PATIENCE_SECONDS)).entries


async def refusal(address, folder):
    async with connected(address, folder) as connection:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(connection)
        return caught.value.code()


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def server_folder(authority, tmp_path):
    return authority.issue(tmp_path / "server", "server")


async def test_both_sides_authenticate(authority, server_folder, tmp_path):
    client = authority.issue(tmp_path / "client", "client")
    async with serving(server_folder) as address, connected(address, client) as connection:
        assert await call(connection) == 7
        stranger = Authority().issue(tmp_path / "stranger", "client")
        assert await refusal(address, stranger) == grpc.StatusCode.UNAVAILABLE
        # Trusts the server's CA but has a certificate of another.
        trusting = Authority().issue(tmp_path / "trusting", "client", bundle=authority.pem)
        assert await refusal(address, trusting) == grpc.StatusCode.UNAVAILABLE
        expired = authority.issue(tmp_path / "old", "client", lifetime=-timedelta(hours=1))
        assert await refusal(address, expired) == grpc.StatusCode.UNAVAILABLE
        assert await refusal(address, None) == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("secure", [False, True])
async def test_proxy_variables_are_ignored(authority, server_folder, tmp_path, monkeypatch, secure):
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    certificates = CertificateFolder(server_folder) if secure else None
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1, certificates=certificates)
    server.add(buffer_pb2_grpc.add_BufferServicer_to_server, Buffer())
    port = await server.start(["aurora.buffer.v1.Buffer"])
    client = authority.issue(tmp_path / "client", "client") if secure else None
    async with connected(f"127.0.0.1:{port}", client) as connection:
        assert await call(connection) == 7
    await server.stop()


async def test_a_server_with_another_name_is_not_trusted(authority, tmp_path):
    client = authority.issue(tmp_path / "client", "client")
    async with serving(authority.issue(tmp_path / "other", "other")) as address:
        assert await refusal(address, client) == grpc.StatusCode.UNAVAILABLE


OPERATOR = "chat-operator.serving.svc"


async def test_the_servers_certificate_must_have_the_expected_name(
    authority, server_folder, tmp_path
):
    certificates = CertificateFolder(authority.issue(tmp_path / "client", "client"))
    async with serving(server_folder) as address:
        right = Connection(address, certificates=certificates, server_name="server")
        wrong = Connection(address, certificates=certificates, server_name="other")
        assert await call(right) == 7
        with pytest.raises(grpc.aio.AioRpcError, match="Hostname Verification"):
            await call(wrong)
        await right.close()
        await wrong.close()


async def test_only_the_named_peers_may_call(authority, server_folder, tmp_path):
    async with serving(server_folder, admit=only_peers({OPERATOR, "two"})) as address:
        for names in ((OPERATOR,), ("another", "two")):
            peer = authority.issue(tmp_path / "peer", *names)
            async with connected(address, peer) as connection:
                assert await call(connection) == 7


@pytest.mark.parametrize(
    "names",
    [
        ("chat-operator.other.svc",),
        ("other-operator.serving.svc",),
        ("chat-operator.serving",),
        ("chat-operator.serving.svc.cluster.local",),
        ("*.serving.svc",),
        ("aurora-operator", "chat-operator", "serving.svc"),
    ],
)
async def test_no_other_name_from_the_same_ca_may_call(authority, server_folder, tmp_path, names):
    peer = authority.issue(tmp_path / "peer", *names)
    async with serving(server_folder, admit=only_peers({OPERATOR})) as address:
        assert await refusal(address, peer) == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("kind", [x509.UniformResourceIdentifier, x509.RFC822Name])
async def test_only_dns_names_count(authority, server_folder, tmp_path, kind):
    peer = authority.issue(tmp_path / "peer", "another", others=[kind(OPERATOR)])
    async with serving(server_folder, admit=only_peers({OPERATOR})) as address:
        assert await refusal(address, peer) == grpc.StatusCode.PERMISSION_DENIED


async def test_a_common_name_does_not_count(authority, server_folder, tmp_path):
    peer = authority.issue(tmp_path / "peer", common_name=OPERATOR)
    async with serving(server_folder, admit=only_peers({OPERATOR})) as address:
        assert await refusal(address, peer) == grpc.StatusCode.PERMISSION_DENIED


async def test_a_kubelet_probes_health_without_a_certificate(server_folder):
    health = f"127.0.0.1:{free_port()}"
    async with (
        serving(server_folder, health_address=health),
        grpc.aio.insecure_channel(health) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await buffer_pb2_grpc.BufferStub(channel).GetStats(
                buffer_pb2.GetStatsRequest(), timeout=5
            )
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_rotating_the_ca_loses_no_call(authority, server_folder, tmp_path):
    client = authority.issue(tmp_path / "client", "client")
    successor = Authority()
    both = authority.pem + successor.pem
    failures, calls, done = [], 0, asyncio.Event()

    async def traffic(connection):
        nonlocal calls
        while not done.is_set():
            try:
                await call(connection)
            except grpc.aio.AioRpcError as error:
                failures.append(error)
            calls += 1
            await asyncio.sleep(0)

    async def some_calls():
        until = calls + 20
        async with asyncio.timeout(PATIENCE_SECONDS):
            while calls < until:  # noqa: ASYNC110 - the traffic sets no event
                await asyncio.sleep(0)

    async with serving(server_folder) as address, connected(address, client) as connection:
        busy = asyncio.create_task(traffic(connection))
        for issuer, bundle in ((authority, both), (successor, both), (successor, successor.pem)):
            for folder, name in ((server_folder, "server"), (client, "client")):
                issuer.issue(folder, name, bundle=bundle)
                await some_calls()
        done.set()
        await busy
        assert not failures
        # The old CA is no longer trusted.
        left = authority.issue(tmp_path / "left", "client", bundle=both)
        assert await refusal(address, left) == grpc.StatusCode.UNAVAILABLE


def mount(authority, folder, generation):
    """Replaces the folder's content as a kubelet does, by renaming one symlink."""
    authority.issue(folder / f"..{generation}", "server")
    (folder / "..data_tmp").symlink_to(f"..{generation}")
    (folder / "..data_tmp").rename(folder / "..data")


def test_a_replaced_secret_is_reloaded(authority, tmp_path):
    mount(authority, tmp_path, "first")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    certificates = CertificateFolder(tmp_path)
    first = certificates.current()
    assert certificates.current() is first
    mount(Authority(), tmp_path, "second")
    shutil.rmtree(tmp_path / "..first")
    assert certificates.current().authorities == (tmp_path / "ca.crt").read_bytes()
    assert certificates.current() != first


def test_two_generations_are_never_mixed(authority, server_folder, monkeypatch):
    certificates = CertificateFolder(server_folder)
    first = certificates.current()
    authority.issue(server_folder, "server")
    read = tls._read

    def replaced_meanwhile(folder):
        monkeypatch.setattr(tls, "_read", read)
        found = read(folder)
        authority.issue(server_folder, "server")
        return found

    monkeypatch.setattr(tls, "_read", replaced_meanwhile)
    assert certificates.current() is first
    assert certificates.current() is not first
    assert certificates.current().key == (server_folder / "tls.key").read_bytes()


def test_invalid_certificates_are_not_loaded(authority, server_folder, caplog):
    certificates = CertificateFolder(server_folder)
    good = certificates.current()
    (server_folder / "tls.key").write_text("not a key")
    with caplog.at_level(logging.ERROR):
        assert certificates.current() is good
        assert certificates.current() is good
        (server_folder / "tls.crt").unlink()
        assert certificates.current() is good
        assert certificates.current() is good
    assert len(caplog.records) == 2
    assert "tls.crt" in caplog.records[1].fields["reason"]
    authority.issue(server_folder, "server")
    assert certificates.current() is not good
    assert "PRIVATE KEY" not in repr(certificates.current())


def test_missing_files_are_named(authority, tmp_path):
    folder = authority.issue(tmp_path / "server", "server")
    (folder / "ca.crt").unlink()
    with pytest.raises(NotFoundError, match=r"ca\.crt"):
        CertificateFolder(folder)
    authority.issue(folder, "server")
    (folder / "tls.crt").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="server"):
        CertificateFolder(folder)
