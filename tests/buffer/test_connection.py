"""Mapping of Redis' errors to Aurora's, and retries."""

import asyncio

import pytest
from redis.exceptions import (
    BusyLoadingError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from aurora_buffer.connection import connect, redis_errors, retried
from aurora_common.errors import (
    AuroraError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)


def _translated(error: Exception) -> AuroraError:
    with pytest.raises(AuroraError) as caught, redis_errors("do it"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RedisConnectionError("refused"), UnavailableError),
        (BusyLoadingError("loading"), UnavailableError),
        (ConnectionResetError(), UnavailableError),
        (OutOfMemoryError("command not allowed"), OverloadedError),
        (ReadOnlyError("You can't write against a read only replica."), UnavailableError),
        (MasterDownError("Link with MASTER is down"), UnavailableError),
        (ResponseError("Error running script: -OOM command not allowed"), OverloadedError),
        (ResponseError("MISCONF Errors writing to the AOF file"), UnavailableError),
        (ResponseError("WRONGTYPE Operation against a key"), AuroraError),
    ],
)
def test_errors(error, expected):
    translated = _translated(error)
    assert type(translated) is expected
    assert str(translated).startswith("Redis cannot do it")


async def test_retries_while_redis_loads():
    answers = [BusyLoadingError("loading"), RedisConnectionError("refused"), 7]

    async def operation() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await retried(operation, purpose="do it", patience_seconds=5) == 7


async def test_patience_ends():
    async def operation() -> int:
        raise RedisConnectionError("refused")

    start = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError, match="Redis cannot do it now: refused"):
        await retried(operation, purpose="do it", patience_seconds=0.2)
    assert asyncio.get_running_loop().time() - start < 2


async def test_persistent_errors_are_not_retried():
    calls = []

    async def operation() -> int:
        calls.append(1)
        raise ResponseError("WRONGTYPE Operation against a key")

    with pytest.raises(AuroraError):
        await retried(operation, purpose="do it", patience_seconds=5)
    assert len(calls) == 1


def test_authorities_need_tls_and_a_file(tmp_path):
    with pytest.raises(InvalidInputError, match="rediss://"):
        connect("redis://host", authorities=tmp_path / "ca.crt")
    with pytest.raises(NotFoundError, match=r"ca\.crt: no such file"):
        connect("rediss://host", authorities=tmp_path / "ca.crt")


def test_wrong_url_does_not_show_its_password():
    with pytest.raises(InvalidInputError) as caught:
        connect("http://user:secret@host")
    assert "secret" not in str(caught.value)
