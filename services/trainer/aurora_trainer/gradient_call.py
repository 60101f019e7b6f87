"""One call of aurora.trainer.v1.Gradient, as replica 0 makes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass

import grpc
from torch import Tensor

from aurora.trainer.v1 import gradient_pb2, gradient_pb2_grpc
from aurora_common.errors import InvalidInputError
from aurora_trainer.gradient import Measure
from aurora_trainer.parameter import limit_bytes, parsed_parameters
from aurora_trainer.tensor_file import Arriving, pieces

# Replica 0 gives up long before; this is for a call that nobody waits for any more.
_CALL_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A share to be computed; `batch` is its file, `shapes` those of the draft's parameters."""

    draft_config: str
    objective: str
    positions: int
    lengths: tuple[int, ...]
    batch: bytes
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A share's part of the measure, and of the gradient by parameter name.

    `seconds` went by from the weights being asked for to the gradients being here.
    """

    measure: Measure
    gradients: Mapping[str, Tensor]
    seconds: float


async def answer(channel: grpc.aio.Channel, share: Outgoing, weights: Awaitable[bytes]) -> Answer:
    """What the replica at the channel's other end computes; `weights` is a file.

    Raises AioRpcError where it cannot be reached or refuses, and InvalidInputError for an answer
    that does not fit the draft.
    """
    began = time.monotonic()
    stub = gradient_pb2_grpc.GradientStub(channel)  # type: ignore[no-untyped-call]  # generated
    call = stub.Compute(timeout=_CALL_SECONDS)
    try:
        responses = aiter(call)
        await call.write(gradient_pb2.ComputeRequest(task=_task(share)))
        await _part(responses, "accepted")
        for piece in pieces(share.batch):
            await call.write(gradient_pb2.ComputeRequest(batch=piece))
        for piece in pieces(await weights):
            await call.write(gradient_pb2.ComputeRequest(weights=piece))
        await call.done_writing()
        result = (await _part(responses, "result")).result
        arriving = Arriving("gradients", limit_bytes(share.shapes))
        async for response in responses:
            arriving.add(response.gradient)
    finally:
        # For an answer that is not read to its end.
        call.cancel()
    found = await asyncio.to_thread(
        lambda: parsed_parameters("gradients", arriving.taken(), share.shapes)
    )
    return Answer(Measure(result.loss, result.acceptance), found, seconds=time.monotonic() - began)


def _task(share: Outgoing) -> gradient_pb2.Task:
    return gradient_pb2.Task(
        draft_config=share.draft_config,
        objective=share.objective,
        positions=share.positions,
        lengths=share.lengths,
    )


async def _part(
    responses: AsyncIterator[gradient_pb2.ComputeResponse], expected: str
) -> gradient_pb2.ComputeResponse:
    response = await anext(responses, gradient_pb2.ComputeResponse())
    found = response.WhichOneof("part")
    if found != expected:
        raise InvalidInputError(f"the answer holds {found}: allowed is {expected}")
    return response
