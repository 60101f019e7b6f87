"""The fake server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc

from aurora.inference.v1 import inference_pb2_grpc
from aurora.operator.v1 import operator_pb2_grpc
from aurora_client._deployment import Component, PublishedDraft
from aurora_client._errors import AuroraClientError
from aurora_client._inference import Counters, InferenceStatus
from aurora_client._request import GenerateRequest
from aurora_client.testing._answer import Answer
from aurora_client.testing._authentication import FakeAuthentication
from aurora_client.testing._book import Book
from aurora_client.testing._inference import FakeInference
from aurora_client.testing._operator import FakeOperator

# Concurrent calls; each hanging answer and each watch occupies one.
_THREADS = 32


class FakeServer:
    """An inference server and an operator at one address, in this process; a context manager.

    `generate` is answered with `answers` in turn, repeating the last; without any, with `ok`.
    `status` reflects drafts that are staged, promoted and unstaged. With a `token`, the inference
    service refuses calls without it.
    """

    def __init__(self, *answers: Answer, token: str | None = None) -> None:
        self._book = Book()
        self._inference = FakeInference(self._book, answers or (Answer("ok"),))
        self._operator = FakeOperator(self._book)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fake-server")
        self._server = grpc.server(
            self._pool,
            interceptors=[] if token is None else [FakeAuthentication(token)],
            options=[("grpc.so_reuseport", 0)],
        )
        for register, servicer in (
            (inference_pb2_grpc.add_InferenceServicer_to_server, self._inference),
            (operator_pb2_grpc.add_OperatorServicer_to_server, self._operator),
        ):
            register(servicer, self._server)  # type: ignore[no-untyped-call]
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"

    def fail(self, *errors: AuroraClientError) -> None:
        """Makes the next calls fail, one per error, whatever their method."""
        self._book.errors.extend(errors)

    @property
    def calls(self) -> tuple[str, ...]:
        """The method of each call received, so that attempts can be counted."""
        return tuple(self._book.calls)

    @property
    def requests(self) -> tuple[GenerateRequest, ...]:
        """The requests to `generate`, except failed calls."""
        return tuple(self._inference.requests)

    @property
    def cancelled(self) -> int:
        """How many calls of `generate` were cancelled or timed out before their answer's end."""
        return self._inference.cancelled

    def wait_for(self, condition: Callable[[], bool], *, seconds: float = 30.0) -> bool:
        """Waits for a condition on `calls` or `cancelled`; whether it became true in time."""
        return self._book.wait(condition, seconds)

    @property
    def status(self) -> InferenceStatus:
        return self._inference.status

    @status.setter
    def status(self, status: InferenceStatus) -> None:
        self._inference.status = status

    @property
    def counters(self) -> Counters:
        return self._inference.counters

    @counters.setter
    def counters(self, counters: Counters) -> None:
        self._inference.counters = counters

    def show(
        self, deployment_status: Mapping[str, object], components: Sequence[Component] = ()
    ) -> None:
        """Replaces the deployment and notifies watchers; the status is in the Kubernetes form."""
        self._operator.show(deployment_status, components)

    @property
    def drafts(self) -> tuple[PublishedDraft, ...]:
        return self._operator.drafts

    @drafts.setter
    def drafts(self, drafts: Sequence[PublishedDraft]) -> None:
        self._operator.drafts = tuple(drafts)

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """Each accepted rollout command with its rollout's id."""
        return tuple(self._operator.commands)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._book.is_stopping = True
        self._book.wake()
        self._server.stop(grace=None).wait()
        self._pool.shutdown()
