"""The client side of a call of aurora.trainer.v1.Gradient, made by replica 0."""

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
from aurora_common.thread import in_background
from aurora_trainer.learning.gradient import Measure
from aurora_trainer.replica.tensor_file import Landing, pieces

# Replica 0 gives up long before; this ends abandoned calls.
_CALL_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A share to be computed: its task, and the parts of its batch that the task does not imply."""

    draft_kind: str
    draft_config: str
    objective: str
    positions: int
    lengths: tuple[int, ...]
    batch: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Answer:
    """A share's part of the measure and of the gradient, by parameter name.

    The replica's next answer overwrites the gradients. `seconds`: the duration of the call.
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
    """Has the replica compute the share; its gradients are written `into`.

    Raises AioRpcError if it is unreachable or refuses, and InvalidInputError if its answer does not
    fit the draft or is not finite.
    """
    began = time.monotonic()
    stub = gradient_pb2_grpc.GradientStub(channel)  # type: ignore[no-untyped-call]  # generated
    call = stub.Compute(timeout=_CALL_SECONDS)
    try:
        responses = aiter(call)
        await call.write(gradient_pb2.ComputeRequest(task=_task(share)))
        # Before any weights are sent, so that a refusal is cheap and its reason is received.
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
        # In case the answer was not read to its end.
        call.cancel()
    return Answer(Measure(result.loss, result.acceptance), into, seconds=time.monotonic() - began)


def _is_finite(result: gradient_pb2.Result, gradients: Mapping[str, Tensor]) -> bool:
    return all(
        math.isfinite(each)
        for each in (
            result.loss,
            result.acceptance,
            # A norm needs no memory.
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
