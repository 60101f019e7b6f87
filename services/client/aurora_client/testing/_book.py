"""Shared by the fake's servicers: recorded calls, queued failures, and waiting on both."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NoReturn

import grpc

from aurora_client._errors import AuroraClientError, status_of


class Book:
    """Records every call and fails the next ones with queued errors."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.calls: list[str] = []
        self.errors: deque[AuroraClientError] = deque()
        self.is_stopping = False

    def enter(self, method: str, context: grpc.ServicerContext) -> None:
        """Records a call; aborts it if an error is queued."""
        with self.changed:
            self.calls.append(method)
            error = self.errors.popleft() if self.errors else None
            self.changed.notify_all()
        if error is not None:
            fail(context, error)

    def wait(self, condition: Callable[[], bool], seconds: float | None) -> bool:
        """Whether `condition` became true within `seconds`; None waits for ever."""
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    def wake(self) -> None:
        with self.changed:
            self.changed.notify_all()


def fail(context: grpc.ServicerContext, error: AuroraClientError) -> NoReturn:
    """Aborts a call so that a client raises this kind of error with this detail."""
    context.abort(status_of(error), error.detail)
    raise AssertionError("abort returned")
