"""Iterators over a call's responses; abandoning one cancels the call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Generic, Self, TypeVar

ItemT = TypeVar("ItemT")


class Stream(Generic[ItemT]):
    """Responses as they arrive; the call starts with the first `next`.

    The call ends once the iterator is exhausted, closed, exited as a context manager or
    garbage-collected.
    """

    def __init__(self, items: Generator[ItemT, None, None]) -> None:
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        return next(self._items)

    def close(self) -> None:
        """Cancels the call if it is still running."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(Generic[ItemT]):
    """Responses as they arrive; the call starts with the first `anext`.

    The call ends once the iterator is exhausted, closed or exited as a context manager. If it is
    only garbage-collected, the event loop closes it shortly afterwards.
    """

    def __init__(self, items: AsyncGenerator[ItemT, None]) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        return await anext(self._items)

    async def aclose(self) -> None:
        """Cancels the call if it is still running."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
