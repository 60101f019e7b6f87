"""One call as a value: its request, how to read the response, and whether it may be retried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Call(Generic[RequestT, ResponseT, ResultT]):
    """`path` is /package.Service/Method; `read` converts one response to the package's own type.

    `repeatable`: a second attempt is harmless if the response to the first was lost.
    """

    path: str
    request: RequestT
    response: type[ResponseT]
    read: Callable[[ResponseT], ResultT]
    repeatable: bool = True


def nothing(_: Message) -> None:
    """Reads an empty response."""
