"""Replicas that come, go, fail and come again, as replica 0 knows them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurora.trainer.v1 import gradient_pb2, gradient_pb2_grpc
from aurora_common import kept_running
from aurora_common.grpc_server import GrpcServer
from aurora_common.port import free_port
from aurora_model.draft import random_draft, small_draft_config
from aurora_trainer.data.batch import pack
from aurora_trainer.replica import pool as pool_module
from aurora_trainer.replica.call import Outgoing
from aurora_trainer.replica.discovery import Place
from aurora_trainer.replica.parameter import parameters
from aurora_trainer.replica.pool import Replicas
from aurora_trainer.replica.servicer import GRADIENT_SERVICE, GradientServicer
from aurora_trainer.replica.share import batch_tensors, config_text
from aurora_trainer.replica.tensor_file import pieces
from aurora_trainer.settings import Endpoint

SECONDS = 60.0


class Known:
    """A pool that knows one port, and a share for it."""

    def __init__(self, draft, samples) -> None:
        self.port = free_port()
        self.place = Place(f"127.0.0.1:{self.port}")
        self.pool = Replicas(
            [Endpoint("127.0.0.1", self.port)],
            server_name=None,
            certificates=None,
            events=asyncio.get_running_loop(),
        )
        batch = pack(samples)
        self.weights = parameters(draft)
        self.share = Outgoing(
            draft_kind=draft.kind,
            draft_config=config_text(draft),
            objective="LK",
            positions=len(batch.rows),
            lengths=batch.lengths,
            batch=batch_tensors(batch),
        )

    async def answer(self):
        future = self.pool.begin({self.place: self.share}, self.weights)[self.place]
        return await asyncio.wait_for(asyncio.wrap_future(future), SECONDS)

    @asynccontextmanager
    async def serving(self, servicer=None):
        server = GrpcServer(f"127.0.0.1:{self.port}", drain_seconds=0.1)
        server.add(gradient_pb2_grpc.add_GradientServicer_to_server, servicer or GradientServicer())
        await server.start([GRADIENT_SERVICE])
        try:
            yield
        finally:
            await server.stop()

    async def until_ready(self):
        async with asyncio.timeout(SECONDS):
            while not self.pool.ready():
                await self.pool.refresh()


@pytest.fixture
async def known(target, make_samples, monkeypatch):
    monkeypatch.setattr(pool_module, "_FIRST_BACKOFF_SECONDS", 0.0)
    draft = random_draft(small_draft_config(target.decoder.config), seed=1)
    found = Known(draft, make_samples(2))
    yield found
    await found.pool.close()


def logged(caplog):
    return [(record.message, record.fields.get("reason", "")) for record in caplog.records
            if record.name == pool_module.__name__]  # fmt: skip


async def test_a_replica_is_used_once_it_serves_and_its_exclusion_is_logged_once(known, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(3):
        await known.pool.refresh()
    assert known.pool.ready() == ()
    async with known.serving():
        await known.until_ready()
        assert known.pool.ready() == (known.place,)
        assert (await known.answer()).measure.loss > 0
    assert await known.answer() is None
    assert known.pool.ready() == ()
    for _ in range(3):
        await known.pool.refresh()
    async with known.serving():
        await known.until_ready()
        assert (await known.answer()).measure.loss > 0
    assert [message for message, _ in logged(caplog)] == [
        "replica excluded", "replica in use", "replica excluded", "replica in use",
    ]  # fmt: skip


async def test_after_a_failure_it_backs_off(known, monkeypatch):
    monkeypatch.setattr(pool_module, "_FIRST_BACKOFF_SECONDS", 1000.0)
    async with known.serving():
        await known.until_ready()
    assert await known.answer() is None
    async with known.serving():
        await known.pool.refresh()
        assert known.pool.ready() == ()


class Odd(gradient_pb2_grpc.GradientServicer):
    """Answers whatever it is asked with the same messages."""

    def __init__(self, *responses) -> None:
        self._responses = responses

    async def Compute(self, request_iterator, context):  # noqa: N802
        yield gradient_pb2.ComputeResponse(accepted=gradient_pb2.Accepted())
        async for _ in request_iterator:
            pass
        for response in self._responses:
            yield response


RESULT = gradient_pb2.ComputeResponse(result=gradient_pb2.Result(loss=1.0))


def gradient(content):
    return gradient_pb2.ComputeResponse(gradient=content)


ODD = {
    "nothing": ((), "the answer holds None: allowed is result"),
    "no result": ((gradient(b"x"),), "the answer holds gradient: allowed is result"),
    "no gradient": ((RESULT,), "the gradients end before their last tensor"),
    "nonsense": ((RESULT, gradient(b"nonsense")), "the gradients are not a safetensors file"),
    "no json": ((RESULT, gradient(bytes([2] + [0] * 7) + b"{{")), "are not a safetensors file"),
    "a list": ((RESULT, gradient(bytes([2] + [0] * 7) + b"[]")), "do not fit the draft's config"),
    "other names": (
        (RESULT, gradient(b"".join(pieces({"a": torch.zeros(1)})))),
        "the gradients do not fit the draft's config",
    ),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_invalid_answer_is_discarded_and_the_reason_logged(known, caplog, name):
    responses, reason = ODD[name]
    async with known.serving(Odd(*responses)):
        await known.until_ready()
        assert await known.answer() is None
    assert known.pool.ready() == ()
    assert reason in logged(caplog)[-1][1]


class Silent(gradient_pb2_grpc.GradientServicer):
    def __init__(self) -> None:
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def Compute(self, request_iterator, context):  # noqa: N802
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        yield RESULT


async def test_an_abandoned_call_ends(known, caplog):
    servicer = Silent()
    async with known.serving(servicer):
        await known.until_ready()
        future = known.pool.begin({known.place: known.share}, known.weights)[known.place]
        await asyncio.wait_for(servicer.asked.wait(), SECONDS)
        future.cancel()
        await asyncio.wait_for(servicer.left.wait(), SECONDS)
    assert known.pool.ready() == ()
    assert logged(caplog)[-1][1] == "no answer in time"


async def test_failures_are_counted_until_it_answers(known):
    async with known.serving(Odd()):
        for _ in range(3):
            await known.until_ready()
            assert await known.answer() is None
    (replica,) = known.pool._replicas.values()
    assert replica.failures == 3
    async with known.serving():
        await known.until_ready()
        assert (await known.answer()).measure.loss > 0
    assert replica.failures == 0


async def test_buffers_of_an_excluded_replica_are_dropped(known):
    async with known.serving():
        await known.until_ready()
        answer = await known.answer()
        (replica,) = known.pool._replicas.values()
        assert replica.gradients == answer.gradients
        known.pool._exclude(known.place, replica, "for no reason")
        assert replica.gradients == {}


class Vanishing(health_pb2_grpc.HealthServicer):
    """A health service that stops answering once it has vanished."""

    def __init__(self) -> None:
        self.vanished = False

    async def Check(self, request, context):  # noqa: N802
        if self.vanished:
            await asyncio.Event().wait()
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


async def test_a_call_to_a_node_that_vanished_ends(known, caplog, monkeypatch):
    servicer, health, server = Silent(), Vanishing(), grpc.aio.server()
    gradient_pb2_grpc.add_GradientServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(known.place)
    await server.start()
    await known.until_ready()
    future = known.pool.begin({known.place: known.share}, known.weights)[known.place]
    await asyncio.wait_for(servicer.asked.wait(), SECONDS)
    await known.pool.refresh()
    assert known.pool.ready() == (known.place,)
    assert not future.done()
    health.vanished = True
    monkeypatch.setattr(pool_module, "_HEALTH_SECONDS", 0.1)
    await known.pool.refresh()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.wrap_future(future), SECONDS)
    assert known.pool.ready() == ()
    assert "DEADLINE_EXCEEDED" in logged(caplog)[-1][1]
    await server.stop(None)


async def test_once_discovery_is_cancelled_no_replica_is_ready_and_no_call_continues(known, caplog):
    servicer = Silent()
    async with known.serving(servicer):
        looking = asyncio.create_task(known.pool.run())
        await until(known.pool.ready)
        future = known.pool.begin({known.place: known.share}, known.weights)[known.place]
        await asyncio.wait_for(servicer.asked.wait(), SECONDS)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.wrap_future(future), SECONDS)
        assert known.pool.ready() == ()
        assert await known.answer() is None
    assert all(record.levelno == logging.INFO for record in caplog.records)


async def test_discovery_continues_after_any_error(known, caplog, monkeypatch):
    monkeypatch.setattr(pool_module, "_DISCOVERY_SECONDS", 0.0)
    monkeypatch.setattr(kept_running, "_FIRST_PAUSE_SECONDS", 0.0)
    places, fails = known.pool._places, iter([True])

    def found():
        if next(fails, False):
            raise RuntimeError("what nobody thought of")
        return places()

    known.pool._places = found
    async with known.serving():
        # As the trainer's process runs it.
        run = kept_running.kept_running("discovery", known.pool.run)
        looking = asyncio.create_task(run)
        await until(known.pool.ready)
        looking.cancel()
    assert "what nobody thought of" in caplog.text


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - a pool knows no events
            await asyncio.sleep(0)


async def test_one_that_is_gone_is_forgotten(known):
    async with known.serving():
        await known.until_ready()
        known.pool._places = lambda: ()
        await known.pool.refresh()
        assert known.pool.ready() == ()
        assert await known.answer() is None


async def test_one_that_is_stopping_ends_its_share_and_gets_no_other(known):
    servicer = Held()
    async with known.serving(servicer):
        await known.until_ready()
        answer = asyncio.create_task(known.answer())
        await asyncio.wait_for(servicer.asked.wait(), SECONDS)
        known.pool._places = lambda: ()
        for _ in range(2):
            await known.pool.refresh()
        assert known.pool.ready() == ()
        servicer.goes_on.set()
        assert (await answer).measure.loss > 0


class Held(GradientServicer):
    """Computes on command."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def Compute(self, request_iterator, context):  # noqa: N802
        self.asked.set()
        await self.goes_on.wait()
        async for response in super().Compute(request_iterator, context):
            yield response
