"""The connection to Redis: its deadlines, and its errors as Aurora's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aurora_common.errors import (
    AuroraError,
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

# Redis' first words of an error that passes without anybody changing the call.
_PASSING = ("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY")

T = TypeVar("T")


def connect(url: str, *, authorities: Path | None = None) -> Redis:
    """A client for `url` (redis://, rediss:// or unix://) that connects when it is first used.

    `authorities`: PEM of those that may vouch for a rediss:// server; None: the system's.

    Raises InvalidInputError, without repeating the URL as it may hold a password, where it is none,
    and NotFoundError where there is no file `authorities`.
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
            # One shape of answers on every version of Redis and of its client.
            protocol=2,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            # The client would also repeat what must not be repeated, as reading new entries.
            retry=Retry(NoBackoff(), 0),
            **tls,
        )
    except ValueError as error:
        raise InvalidInputError(
            "the Redis URL is wrong: use redis://host:port, rediss://host:port or unix:///path"
        ) from error
    if authorities is not None:
        pool.connection_class = _TrustingAnew
    return Redis.from_pool(pool)


class _TrustingAnew(SSLConnection):
    """Reads the authorities whenever it connects: the file may have been replaced."""

    async def connect(self) -> None:
        self.ssl_context.context = None
        await super().connect()  # type: ignore[no-untyped-call]  # redis leaves it out


@contextmanager
def redis_errors(purpose: str) -> Iterator[None]:
    """Raises Aurora's errors for Redis': UnavailableError where trying again helps.

    `purpose` completes "Redis cannot …".
    """
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise UnavailableError(
            f"Redis cannot {purpose} now: {error or type(error).__name__}"
        ) from error
    except ResponseError as error:
        # Scripts put their own words in front of the error that stopped them, and redis-py takes
        # the first word of one that it has a class for.
        text = str(error)[:200]
        if isinstance(error, OutOfMemoryError) or "OOM " in text:
            raise OverloadedError(f"Redis cannot {purpose}: it is out of memory") from error
        passing = isinstance(error, ReadOnlyError | ClusterDownError)
        if passing or any(word in text for word in _PASSING):
            raise UnavailableError(f"Redis cannot {purpose} now: {text}") from error
        raise AuroraError(f"Redis cannot {purpose}: {text}") from error
    except RedisError as error:
        raise AuroraError(f"Redis cannot {purpose}: {type(error).__name__}") from error


async def persistently(
    operation: Callable[[], Awaitable[T]], *, purpose: str, patience_seconds: float
) -> T:
    """Runs `operation` until Redis answers it; only for what may run twice.

    Raises UnavailableError once Redis could not be reached, or was loading, for
    `patience_seconds`, and at once what `redis_errors` makes of other errors.
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
