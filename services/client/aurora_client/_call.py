"""One call as a value: what is asked, how the answer is read, and whether it may be repeated."""

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
    """`path` is /package.Service/Method; `read` turns one response into the package's own type.

    `repeatable`: a second attempt does no harm where the first one's answer was lost.
    """

    path: str
    request: RequestT
    response: type[ResponseT]
    read: Callable[[ResponseT], ResultT]
    repeatable: bool = True


def nothing(_: Message) -> None:
    """Reads an answer that only says that it is done."""
