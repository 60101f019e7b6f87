"""One call of aurora.trainer.v1.Gradient, as replica 0 makes it."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import grpc
import torch
from torch import Tensor

from aurora.trainer.v1 import gradient_pb2, gradient_pb2_grpc
from aurora_common.errors import InvalidInputError
from aurora_trainer.learning.gradient import Measure
from aurora_trainer.replica.background import in_background
from aurora_trainer.replica.tensor_file import Landing, pieces

# Replica 0 gives up long before; this is for a call that nobody waits for any more.
_CALL_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A share to be computed: its task, and what of its batch does not follow from that."""

    draft_kind: str
    draft_config: str
    objective: str
    positions: int
    lengths: tuple[int, ...]
    batch: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Answer:
    """A share's part of the measure, and of the gradient by parameter name.

    The gradients are overwritten by the replica's next answer. `seconds` is what it took.
    """

    measure: Measure
    gradients: Mapping[str, Tensor]
    seconds: float


async def answer(
    channel: grpc.aio.Channel,
    share: Outgoing,
    weights: Mapping[str, Tensor],
    *,
    into: Mapping[str, Tensor],
) -> Answer:
    """What the replica at the channel's other end computes; its gradients are written `into`.

    Raises AioRpcError where it cannot be reached or refuses, and InvalidInputError for an answer
    that does not fit the draft or is not finite.
    """
    began = time.monotonic()
    stub = gradient_pb2_grpc.GradientStub(channel)  # type: ignore[no-untyped-call]  # generated
    call = stub.Compute(timeout=_CALL_SECONDS)
    try:
        responses = aiter(call)
        await call.write(gradient_pb2.ComputeRequest(task=_task(share)))
        # Before the weights are sent: a refusal costs nothing, and its reason is seen.
        await _part(responses, "accepted")
        for piece in pieces(share.batch):
            await call.write(gradient_pb2.ComputeRequest(batch=piece))
        for piece in pieces(weights):
            await call.write(gradient_pb2.ComputeRequest(weights=piece))
        await call.done_writing()
        result = (await _part(responses, "result")).result
        landing = Landing("gradients", into)
        async for response in responses:
            landing.add(response.gradient)
        landing.finish()
        if not await in_background(lambda: _is_finite(result, into)):
            raise InvalidInputError("the answer's loss or gradient is not finite")
    finally:
        # For an answer that is not read to its end.
        call.cancel()
    return Answer(Measure(result.loss, result.acceptance), into, seconds=time.monotonic() - began)


def _is_finite(result: gradient_pb2.Result, gradients: Mapping[str, Tensor]) -> bool:
    return all(
        math.isfinite(each)
        for each in (
            result.loss,
            result.acceptance,
            # Of a norm alone, no memory is needed.
            *(float(torch.linalg.vector_norm(gradient)) for gradient in gradients.values()),
        )
    )


def _task(share: Outgoing) -> gradient_pb2.Task:
    return gradient_pb2.Task(
        draft_kind=share.draft_kind,
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
