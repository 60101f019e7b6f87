"""The connection to Redis: deadlines, retries, and errors mapped to Aurora's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aurora_buffer.acl import ACL_RULES
from aurora_common.errors import (
    AuroraError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 10.0
MAX_CONNECTIONS = 64

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5

# Error prefixes of Redis that are transient: the same call may succeed later.
_TRANSIENT = ("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY")

# How scripts of Redis 6.2 and 7 say that the user may not run one of their commands.
_FORBIDDEN = ("can't run this command", "can't access at least one of the keys", "ACL failure")

T = TypeVar("T")


def connect(url: str, *, authorities: Path | None = None) -> Redis:
    """A client for `url` (redis://, rediss:// or unix://) that connects when it is first used.

    `authorities`: PEM file of the CAs to trust for a rediss:// server; None: the system's. Raises
    InvalidInputError for a malformed URL, without quoting it since it may hold a password, and
    NotFoundError if the file is missing.
    """
    tls = {}
    if authorities is not None:
        if not url.startswith("rediss://"):
            raise InvalidInputError("--redis-ca is for a rediss:// URL alone")
        if not authorities.is_file():
            raise NotFoundError(f"--redis-ca {authorities}: no such file")
        tls = {"ssl_ca_certs": str(authorities)}
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=ANSWER_SECONDS,
            # The same answers from every version of Redis and of its client.
            protocol=2,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            # The client would also retry what must not be, such as reading new entries.
            retry=Retry(NoBackoff(), 0),
            # Its name would be sent by CLIENT, which the user need not be allowed.
            driver_info=None,
            **tls,
        )
    except ValueError as error:
        raise InvalidInputError(
            "the Redis URL is wrong: use redis://host:port, rediss://host:port or unix:///path"
        ) from error
    if authorities is not None:
        pool.connection_class = _ReloadingConnection
    elif url.startswith("unix://"):
        pool.connection_class = _WideConnection
    return Redis.from_pool(pool)


class _ReloadingConnection(SSLConnection):
    """Reloads the CA file on every connect, since it may have been replaced."""

    async def connect(self) -> None:
        self.ssl_context.context = None
        await super().connect()  # type: ignore[no-untyped-call]  # redis does not annotate it


class _WideConnection(UnixDomainSocketConnection):
    """Takes the largest send buffer: it holds a batch of trajectories, which TCP's grows to."""

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]  # redis does not annotate it
        assert self._writer is not None
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20
        )


@contextmanager
def redis_errors(purpose: str) -> Iterator[None]:
    """Maps Redis' errors to Aurora's.

    UnavailableError if retrying helps, ConflictError if the user lacks a permission. `purpose`
    completes "Redis cannot …".
    """
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise UnavailableError(
            f"Redis cannot {purpose} now: {error or type(error).__name__}"
        ) from error
    except ResponseError as error:
        # Scripts prefix the error that stopped them, and redis-py strips the first word of an
        # error that it has a class for.
        text = str(error)[:300]
        if isinstance(error, NoPermissionError) or any(words in text for words in _FORBIDDEN):
            raise ConflictError(
                f"Redis cannot {purpose}: {text}; the buffer's user needs the keys of its stream "
                f"and {' '.join(ACL_RULES)}"
            ) from error
        if isinstance(error, OutOfMemoryError) or "OOM " in text:
            raise OverloadedError(f"Redis cannot {purpose}: it is out of memory") from error
        transient = isinstance(error, ReadOnlyError | ClusterDownError)
        if transient or any(word in text for word in _TRANSIENT):
            raise UnavailableError(f"Redis cannot {purpose} now: {text}") from error
        raise AuroraError(f"Redis cannot {purpose}: {text}") from error
    except RedisError as error:
        raise AuroraError(f"Redis cannot {purpose}: {type(error).__name__}") from error


async def retried(
    operation: Callable[[], Awaitable[T]], *, purpose: str, patience_seconds: float
) -> T:
    """Retries `operation`, which may run twice, until Redis answers.

    Raises UnavailableError once Redis has been unreachable or loading for `patience_seconds`, and
    any other error of `redis_errors` at once.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            with redis_errors(purpose):
                return await operation()
        except UnavailableError:
            if clock() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
