"""What the fronts need of the engine's thread; `engine.worker.EngineWorker` is the real one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, TypeVar

from aurora_inference.engine.request import Progress, Request

if TYPE_CHECKING:
    # Imports torch, which the fronts need only by type.
    from aurora_inference.engine.engine import Engine

T = TypeVar("T")


class Worker(Protocol):
    """The thread that owns the engine; every method may be called from any thread."""

    def submit(self, request: Request, sink: Callable[[Progress], None]) -> None:
        """Starts a request; `sink` is called on the engine's thread with each step's tokens.

        Raises InvalidInputError, OverloadedError or UnavailableError, without calling the sink.
        """

    def cancel(self, request_id: str) -> None:
        """Ends a request; its sink hears of it unless it has ended already."""

    def run(self, operation: Callable[[Engine], T]) -> Future[T]:
        """Runs an operation on the engine between two steps."""
