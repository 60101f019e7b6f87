"""Every replica behind a name once."""

from __future__ import annotations

import socket

import pytest

from aurora_common.errors import UnavailableError
from aurora_trainer.replica import discovery
from aurora_trainer.replica.discovery import places
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


def test_every_address_once(names):
    names["gradient"] = POD
    endpoint = Endpoint("gradient", 7)
    assert places([endpoint, endpoint]) == ("10.0.0.1:7", "10.0.0.2:7", "10.0.0.3:7")


def test_each_pod_once_though_it_has_two_addresses(names):
    names["both"] = ("fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2")
    names["six"] = ("fd00::1", "fd00::2")
    assert places([Endpoint("both", 7)]) == ("10.0.0.1:7", "10.0.0.2:7")
    assert places([Endpoint("six", 7)]) == ("[fd00::1]:7", "[fd00::2]:7")


def test_a_name_without_an_address_leaves_the_others(names):
    names["b"] = ("10.0.0.3",)
    assert places([Endpoint("a", 7), Endpoint("b", 7)]) == ("10.0.0.3:7",)
    with pytest.raises(UnavailableError, match="a: Name or service not known"):
        places([Endpoint("a", 7)])


def test_invalid_names_have_no_address():
    with pytest.raises(UnavailableError, match="label"):
        places([Endpoint("a..b", 7)])
