"""aurora.trainer.v1.Gradient: the gradient of a share that replica 0 sends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import torch

from aurora.trainer.v1 import gradient_pb2, gradient_pb2_grpc
from aurora_common.errors import InvalidInputError, OverloadedError
from aurora_model.decoder import Decoder
from aurora_trainer.background import in_background
from aurora_trainer.gradient import Measure, differentiate
from aurora_trainer.objective import objective_named
from aurora_trainer.parameter import gradients, limit_bytes, parsed_parameters
from aurora_trainer.share import ShareTask, parsed_batch, parsed_task
from aurora_trainer.tensor_file import Arriving, pieces, written

logger = logging.getLogger(__name__)

GRADIENT_SERVICE = "aurora.trainer.v1.Gradient"

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class GradientServicer(gradient_pb2_grpc.GradientServicer):
    """Computes one share at a time; `computed` counts them."""

    def __init__(self) -> None:
        self.computed = 0
        # Held from a call's task until its gradient is there, so that memory is bounded; also by a
        # computation whose caller has gone.
        self._seat = threading.Lock()
        self._draft: Decoder | None = None

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
            raise OverloadedError("another share is being computed; send it again later")
        computing: asyncio.Task[tuple[Measure, bytes]] | None = None
        try:
            yield gradient_pb2.ComputeResponse(accepted=gradient_pb2.Accepted())
            batch, weights = await _received(request_iterator, task)
            computing = asyncio.create_task(
                in_background(lambda: self._computed(task, batch.taken(), weights.taken()))
            )
            measure, content = await asyncio.shield(computing)
        finally:
            if computing is None:
                self._seat.release()
            else:
                computing.add_done_callback(lambda _: self._seat.release())
        self.computed += 1
        result = gradient_pb2.Result(loss=measure.loss, acceptance=measure.acceptance)
        yield gradient_pb2.ComputeResponse(result=result)
        for piece in pieces(content):
            yield gradient_pb2.ComputeResponse(gradient=piece)

    def _computed(self, task: ShareTask, batch: bytes, weights: bytes) -> tuple[Measure, bytes]:
        packed = parsed_batch(batch, task)
        draft = self._with_weights(task, weights)
        draft.zero_grad(set_to_none=True)
        loss = objective_named(task.objective)
        measure = differentiate(draft, packed, loss, positions=task.positions)
        return measure, written(gradients(draft))

    @torch.no_grad()
    def _with_weights(self, task: ShareTask, weights: bytes) -> Decoder:
        found = parsed_parameters("weights", weights, task.shapes)
        if self._draft is None or self._draft.config != task.config:
            self._draft = Decoder(task.config).train()
        for name, parameter in self._draft.named_parameters():
            parameter.copy_(found[name])
        return self._draft


async def _received(
    requests: AsyncIterator[gradient_pb2.ComputeRequest], task: ShareTask
) -> tuple[Arriving, Arriving]:
    batch = Arriving("batch's tensors", task.batch_limit_bytes)
    weights = Arriving("weights", limit_bytes(task.shapes))
    async for request in requests:
        match request.WhichOneof("part"):
            case "batch":
                batch.add(request.batch)
            case "weights":
                weights.add(request.weights)
            case other:
                raise InvalidInputError(f"a later message holds {other}: allowed are pieces")
    return batch, weights
