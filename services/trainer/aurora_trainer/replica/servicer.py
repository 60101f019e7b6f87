"""aurora.trainer.v1.Gradient: computes the gradient of a share for replica 0."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
from torch import Tensor

from aurora.trainer.v1 import gradient_pb2, gradient_pb2_grpc
from aurora_common.errors import InvalidInputError, OverloadedError, UnavailableError
from aurora_common.thread import in_background
from aurora_model.draft import Draft
from aurora_trainer.learning.gradient import Measure, differentiate
from aurora_trainer.learning.objective import objective_named
from aurora_trainer.replica.parameter import blank_draft, gradients, parameters
from aurora_trainer.replica.share import ShareTask, parsed_batch, parsed_task
from aurora_trainer.replica.tensor_file import Arriving, Landing, pieces

GRADIENT_SERVICE = "aurora.trainer.v1.Gradient"

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class GradientServicer(gradient_pb2_grpc.GradientServicer):
    """Computes one share at a time and counts them in `computed`."""

    def __init__(self) -> None:
        self.computed = 0
        # Held from a call's task until its gradient is computed, which bounds memory.
        self._seat = threading.Lock()
        self._draft: Draft | None = None
        self._computing: asyncio.Future[tuple[Measure, dict[str, Tensor]]] | None = None
        self._gave_up = False

    @property
    def is_computing(self) -> bool:
        """Whether a share is in progress, even if its caller has gone."""
        return self._seat.locked()

    async def Compute(  # noqa: N802 - the name in the protocol
        self, request_iterator: AsyncIterator[gradient_pb2.ComputeRequest], context: Context
    ) -> AsyncIterator[gradient_pb2.ComputeResponse]:
        first = await anext(aiter(request_iterator), gradient_pb2.ComputeRequest())
        if first.WhichOneof("part") != "task":
            raise InvalidInputError(
                f"the first message holds {first.WhichOneof('part')}: allowed is a task"
            )
        task = parsed_task(first.task)
        if not self._seat.acquire(blocking=False):
            raise OverloadedError("another share is being computed; retry later")
        begun = False
        try:
            draft = self._draft_for(task)
            yield gradient_pb2.ComputeResponse(accepted=gradient_pb2.Accepted())
            content = await _received(request_iterator, task, draft)
            begun = True
            self._computing = in_background(lambda: self._computed(task, content, draft))
            measure, found = await self._computing
        except asyncio.CancelledError:
            if not self._gave_up:
                raise
            raise UnavailableError("this replica is stopping") from None
        finally:
            # It would keep the gradient alive.
            self._computing = None
            if not begun:
                self._seat.release()
        self.computed += 1
        result = gradient_pb2.Result(loss=measure.loss, acceptance=measure.acceptance)
        yield gradient_pb2.ComputeResponse(result=result)
        for piece in pieces(found):
            yield gradient_pb2.ComputeResponse(gradient=piece)

    def give_up(self) -> None:
        """Ends the call in progress with UNAVAILABLE, because the process is stopping."""
        self._gave_up = True
        if self._computing is not None:
            self._computing.cancel()

    def _draft_for(self, task: ShareTask) -> Draft:
        """The draft to load the weights into; one of another config is dropped."""
        draft = self._draft
        if draft is None or (type(draft), draft.config) != (task.kind, task.config):
            # First, so that two are never in memory.
            self._draft = None
            self._draft = draft = blank_draft(task.kind, task.config)
        return draft

    def _computed(
        self, task: ShareTask, content: bytes, draft: Draft
    ) -> tuple[Measure, dict[str, Tensor]]:
        """Runs on a thread that outlives a cancelled caller and releases the seat."""
        try:
            batch = parsed_batch(content, task)
            draft.zero_grad(set_to_none=True)
            loss = objective_named(task.objective)
            measure = differentiate(draft, batch, loss, positions=task.positions)
            return measure, gradients(draft)
        finally:
            self._seat.release()


async def _received(
    requests: AsyncIterator[gradient_pb2.ComputeRequest], task: ShareTask, draft: Draft
) -> bytes:
    """Receives the batch's file, and the weights into the draft.

    Errors are raised only once the caller has finished sending: gRPC clients lose the status of a
    call that ends while they send.
    """
    batch = Arriving("batch's tensors", task.batch_limit_bytes)
    weights = Landing("weights", parameters(draft))
    wrong: InvalidInputError | None = None
    async for request in requests:
        if wrong is not None:
            continue
        try:
            match request.WhichOneof("part"):
                case "batch":
                    batch.add(request.batch)
                case "weights":
                    weights.add(request.weights)
                case other:
                    raise InvalidInputError(f"a later message holds {other}: allowed are pieces")
        except InvalidInputError as error:
            wrong = error
    if wrong is not None:
        raise wrong
    weights.finish()
    return batch.content()
