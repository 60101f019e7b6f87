"""Who may call which method of a gRPC server."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import grpc

from aurora_common.errors import ForbiddenError, UnauthenticatedError
from aurora_common.token import TokenFolder

Context = grpc.aio.ServicerContext[Any, Any]
# Takes the full method name and the call; raises an AuroraError to refuse it.
Admission = Callable[[str, Context], None]

_SCHEME = "bearer "


def everyone(method: str, context: Context) -> None:
    """Admits every call."""


def only_peers(names: Collection[str]) -> Admission:
    """Admits clients whose certificate has one of `names` as a DNS name, compared exactly."""
    allowed = frozenset(name.encode() for name in names)

    def admit(method: str, context: Context) -> None:
        # DNS names alone: IP and URI names may read the same, and issuers seldom verify them.
        found = context.auth_context().get("peer_dns", ())
        if allowed.isdisjoint(found):
            raise ForbiddenError(f"{method} is not allowed for a client with this certificate")

    return admit


def named_peers(names: Collection[str], *, has_tls: bool) -> Admission:
    """Admits only `names`; without TLS everyone, since clients cannot be told apart."""
    return only_peers(names) if has_tls else everyone


def admit_problem(*, has_tls: bool, admit: Collection[str]) -> str | None:
    """Why a command line's --tls and --admit do not go together; None if they do."""
    if has_tls and not admit:
        return "--tls without --admit: no client could call; name those that may"
    if admit and not has_tls:
        return "--admit without --tls: without certificates no client can be identified"
    return None


def only_bearers(tokens: TokenFolder) -> Admission:
    """Admits calls whose metadata has `authorization: Bearer <token>`."""

    def admit(method: str, context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        if not tokens.admits(bearer_token(str(metadata.get("authorization", "")))):
            raise UnauthenticatedError(
                "no valid token; send the metadata authorization: Bearer <token>"
            )

    return admit


def only_methods(methods: Collection[str], reason: str) -> Admission:
    """Admits only methods with these short names; `reason` completes the refusal's message."""

    def admit(method: str, context: Context) -> None:
        if method.rpartition("/")[2] not in methods:
            raise ForbiddenError(f"{method} {reason}")

    return admit


def all_of(*admissions: Admission) -> Admission:
    def admit(method: str, context: Context) -> None:
        for admission in admissions:
            admission(method, context)

    return admit


def bearer_token(header: str) -> str:
    """The token of an Authorization header; empty if it holds none."""
    if header[: len(_SCHEME)].lower() != _SCHEME:
        return ""
    return header[len(_SCHEME) :].strip()
