from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aurora_client import (
    AsyncAuroraClient,
    AsyncOperatorClient,
    AuroraClient,
    OperatorClient,
    Retry,
)


class Driver:
    """Drives either client from a synchronous test; awaits what the asyncio client returns."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self._runner = asyncio.Runner() if is_async else None
        self._open: list[Any] = []

    def client(self, address: str, **settings: Any) -> Any:
        return self._opened(
            (AsyncAuroraClient if self.is_async else AuroraClient), address, settings
        )

    def operator(self, address: str, **settings: Any) -> Any:
        return self._opened(
            (AsyncOperatorClient if self.is_async else OperatorClient), address, settings
        )

    def _opened(self, kind: Any, address: str, settings: dict[str, Any]) -> Any:
        client = kind(address, **{"retry": Retry(retries=0), **settings})
        self._open.append(client)
        return client

    def result(self, value: Any) -> Any:
        if not inspect.isawaitable(value):
            return value

        async def wait() -> Any:
            return await value

        assert self._runner is not None
        return self._runner.run(wait())

    def next(self, stream: Any) -> Any:
        return self.result(anext(stream)) if isinstance(stream, AsyncIterator) else next(stream)

    def all(self, stream: Any) -> list[Any]:
        if not isinstance(stream, AsyncIterator):
            return list(stream)

        async def collect() -> list[Any]:
            return [item async for item in stream]

        return self.result(collect())

    def close_stream(self, stream: Any) -> None:
        self.result(stream.aclose() if isinstance(stream, AsyncIterator) else stream.close())

    def close(self) -> None:
        for client in self._open:
            self.result(client.close())
        if self._runner is not None:
            self._runner.close()


@pytest.fixture(params=["sync", "async"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    driver = Driver(is_async=request.param == "async")
    yield driver
    driver.close()


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """The fake server stops every thread that it started."""
    yield
    left = [thread.name for thread in threading.enumerate() if "fake-server" in thread.name]
    assert left == []
