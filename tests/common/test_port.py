"""Listeners take IPv6 and IPv4, and work on machines that have only one of them."""

import errno
import socket
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from aurora_common import port
from aurora_common.exposition import metrics_served
from aurora_common.grpc_server import GrpcServer
from aurora_common.port import free_port, listening_host


def _has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


LOOPBACKS = [
    "127.0.0.1",
    pytest.param("[::1]", marks=pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6")),
]


@pytest.fixture
def no_ipv6(monkeypatch):
    """What a kernel without IPv6 does."""

    def refuse(family=socket.AF_INET, *more, **named):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, *more, **named)

    made = socket.socket
    monkeypatch.setattr(port.socket, "socket", refuse)


def test_a_port_is_not_given_twice_before_its_server_can_listen():
    assert len({free_port() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("host", "expected"),
    [("[::1]", "::1"), ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("name", "name")],
)
def test_a_host_is_taken_as_it_is(host, expected):
    assert listening_host(host) == expected


def test_every_address_without_ipv6_is_every_one_of_ipv4(no_ipv6):
    assert listening_host("[::]") == "0.0.0.0"


@pytest.mark.parametrize("host", LOOPBACKS)
def test_metrics_are_served_on_both(host):
    number = free_port()
    with (
        metrics_served(f"[::]:{number}", CollectorRegistry()),
        urllib.request.urlopen(f"http://{host}:{number}/metrics", timeout=10) as answer,
    ):
        assert answer.status == 200


def test_metrics_are_served_without_ipv6(no_ipv6):
    number = free_port()
    with (
        metrics_served(f"[::]:{number}", CollectorRegistry()),
        urllib.request.urlopen(f"http://127.0.0.1:{number}/metrics", timeout=10) as answer,
    ):
        assert answer.status == 200


@pytest.mark.parametrize("host", LOOPBACKS)
async def test_grpc_is_served_on_both(host):
    server = GrpcServer("[::]:0", drain_seconds=0.1)
    number = await server.start([])
    async with grpc.aio.insecure_channel(f"{host}:{number}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await server.stop()
