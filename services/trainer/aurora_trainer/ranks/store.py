"""The trainer's c10d store, where its ranks find it and each other.

torch neither encrypts nor authenticates what goes through it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
from datetime import timedelta

import torch
from torch import distributed

from aurora_common.errors import ConflictError, UnavailableError
from aurora_common.flag import host_port
from aurora_common.version import VERSION

_CALL_SECONDS = 10.0
_HELLO = "hello"
_BACKLOG = 128


def hosted_store(address: str) -> distributed.TCPStore:
    """A store that listens on HOST:PORT; raises UnavailableError if it cannot."""
    host, port = host_port(address)
    _confine(host)
    try:
        listener = _listener(host, port)
    except OSError as error:
        raise UnavailableError(f"cannot listen for ranks on {address}: {error.strerror}") from error
    store = distributed.TCPStore(
        "localhost" if _is_any(host) else host,
        listener.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=_CALL_SECONDS),
        master_listen_fd=listener.detach(),
    )
    store.set(_HELLO, json.dumps(_versions()))
    return store


def joined_store(address: str) -> distributed.TCPStore:
    """A connection to the trainer's store at HOST:PORT.

    Raises UnavailableError if there is none, ConflictError if the trainer is of another version:
    what one rank adds to a gradient must be what another would have.
    """
    host, port = host_port(address)
    _confine(host)
    try:
        store = distributed.TCPStore(
            host,
            port,
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=_CALL_SECONDS),
        )
        theirs = json.loads(store.get(_HELLO))
    except (distributed.DistError, ValueError) as error:
        raise UnavailableError(f"no trainer at {address}: {first_line(error)}") from error
    if theirs != _versions():
        raise ConflictError(
            f"this rank is {_named(_versions())}, the trainer at {address} {_named(theirs)}: all "
            "ranks must be of one version"
        )
    return store


def first_line(error: Exception) -> str:
    """What torch says, without its stack."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)


def _versions() -> dict[str, str]:
    return {"aurora": VERSION, "torch": torch.__version__}


def _named(versions: object) -> str:
    if not isinstance(versions, dict):
        return "of an unknown version"
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _confine(host: str) -> None:
    """On one machine nothing but the loopback interface carries the gradients."""
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    if is_local:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


def _listener(host: str, port: int) -> socket.socket:
    if host == "::" and socket.has_dualstack_ipv6():
        return socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
        )
    family = socket.AF_INET6 if ":" in host and host != "::" else socket.AF_INET
    return socket.create_server(
        ("" if _is_any(host) else host, port), family=family, backlog=_BACKLOG
    )


def _is_any(host: str) -> bool:
    return host in ("::", "0.0.0.0")
