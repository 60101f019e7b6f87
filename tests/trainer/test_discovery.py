"""Every replica behind a name once, but never this one."""

from __future__ import annotations

import socket

import pytest

from aurora_common.errors import UnavailableError
from aurora_trainer import discovery
from aurora_trainer.discovery import Place, places
from aurora_trainer.settings import Endpoint

POD = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


@pytest.fixture
def names(monkeypatch):
    """What each name resolves to."""
    known: dict[str, tuple[str, ...]] = {}

    def resolve(host, port, **_):
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, None, 0, "", (ip, port))
            for ip in known[host]
        ]

    monkeypatch.setattr(discovery.socket, "getaddrinfo", resolve)
    return known


def test_every_address_but_our_own(names):
    names["trainer"] = POD
    found = places([Endpoint("trainer", 7)], own_ip="10.0.0.2", own_port=7)
    assert found == (Place("10.0.0.1:7", "trainer"), Place("10.0.0.3:7", "trainer"))


def test_each_pod_once_though_it_has_two_addresses(names):
    names["trainer"] = ("fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2")
    endpoint = Endpoint("trainer", 7)
    assert places([endpoint], own_ip="10.0.0.2", own_port=7) == (Place("10.0.0.1:7", "trainer"),)
    assert places([endpoint], own_ip="fd00::2", own_port=7) == (Place("[fd00::1]:7", "trainer"),)


def test_without_an_own_address_those_of_this_host_are_left_out():
    here = [Endpoint("127.0.0.1", 7), Endpoint("127.0.0.1", 8), Endpoint("127.0.0.1", 8)]
    found = places(here, own_ip=None, own_port=7)
    assert found == (Place("127.0.0.1:8", "127.0.0.1"),)


def test_a_name_without_an_address_leaves_the_others(names):
    names["b"] = ("10.0.0.3",)
    found = places([Endpoint("a", 7), Endpoint("b", 7)], own_ip="10.0.0.2", own_port=7)
    assert found == (Place("10.0.0.3:7", "b"),)
    with pytest.raises(UnavailableError, match="a: Name or service not known"):
        places([Endpoint("a", 7)], own_ip="10.0.0.2", own_port=7)


def test_what_is_no_name_has_no_address():
    with pytest.raises(UnavailableError, match="label"):
        places([Endpoint("a..b", 7)], own_ip="10.0.0.2", own_port=7)
