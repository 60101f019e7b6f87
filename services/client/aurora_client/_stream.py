"""Iterators over a call's responses; leaving one early cancels the call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Generic, Self, TypeVar

ItemT = TypeVar("ItemT")


class Stream(Generic[ItemT]):
    """Responses as they arrive; the call starts with the first `next`.

    The call ends with the iterator: exhausted, closed, left as a context manager, or let go.
    """

    def __init__(self, items: Generator[ItemT, None, None]) -> None:
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        return next(self._items)

    def close(self) -> None:
        """Cancels the call where it still runs."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(Generic[ItemT]):
    """Responses as they arrive; the call starts with the first of them asked for.

    The call ends with the iterator: exhausted, closed, or left as a context manager. One that is
    only let go is closed by the event loop a moment later.
    """

    def __init__(self, items: AsyncGenerator[ItemT, None]) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        return await anext(self._items)

    async def aclose(self) -> None:
        """Cancels the call where it still runs."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
